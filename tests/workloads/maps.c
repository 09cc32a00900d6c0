// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * maps VARIANT FILE PAGES: touches a file through memory. FILE has PAGES + 2 pages or more; PAGES is a prime above 101.
 *   read:       MAP_SHARED, MADV_RANDOM, one byte of every page read in the order 0, 101, 202, … (modulo PAGES)
 *   shared:     the same with one byte of every page stored
 *   private:    MAP_PRIVATE, one byte stored, same order: one fault a page on every kernel, for each needs its own copy
 *   window:     the same from page 2 of the file on
 *   populate:   MAP_POPULATE, then every page read: nothing left to fault
 *   write:      write(2) of the whole mapping to FILE.copy, so that the kernel faults
 *   remap:      maps 7 pages MAP_PRIVATE and stores to 3, mremap to 13 pages at another address and stores to 5 new
 *               ones, munmap of page 6, then of those before and of those behind it: 8 faults, 3 munmaps
 *   both:       11 pread64 calls of one page each, then one byte of every 16th page read through a mapping; FILE is
 *               opened for reading only, so that an overlay filesystem need not copy it
 * Touching prints {"op": "touch", "order": […pages of the file…], "minflt": n, "majflt": n} with the faults that
 * getrusage(2) counted meanwhile; what could fault besides the file was touched before. How many faults shared pages
 * cost depends on fault-around and, since 6.18, on the folios in the page cache: a file written by one write(2) a page
 * has small ones.
 */
#include "work.h"
#include <sys/mman.h>
#include <sys/resource.h>

enum { STRIDE = 101 };

static volatile char sink;

static void touch(char *base, const int *order, int count, bool is_store)
{
	for (int i = 0; i < count; i++) {
		if (is_store)
			base[(size_t)order[i] * PAGE] = 1;
		else
			sink = base[(size_t)order[i] * PAGE];
	}
}

/* Touches pages of a mapping that begins at page `first` of its file, and prints what it cost. */
static void touch_counted(char *base, int first, const int *order, int count, bool is_store)
{
	/* A rehearsal faults in the code and the order itself. */
	static char warm[PAGE];
	static const int once[] = {0};
	struct rusage before, after;
	char *text, *end;

	touch(warm, once, 1, is_store);
	for (int i = 0; i < count; i++)
		sink = order[i];
	getrusage(RUSAGE_SELF, &after);
	getrusage(RUSAGE_SELF, &before);
	touch(base, order, count, is_store);
	getrusage(RUSAGE_SELF, &after);

	text = end = malloc(12 * (size_t)count + 1);
	if (!text)
		die("out of memory");
	*end = 0;
	for (int i = 0; i < count; i++)
		end += sprintf(end, "%s%d", i ? ", " : "", first + order[i]);
	say("{\"op\": \"touch\", \"pid\": %d, \"addr\": \"%p\", \"is_write\": %s, \"order\": [%s], "
	    "\"minflt\": %ld, \"majflt\": %ld}\n",
	    getpid(), (void *)base, is_store ? "true" : "false", text, after.ru_minflt - before.ru_minflt,
	    after.ru_majflt - before.ru_majflt);
	free(text);
}

static char *map(int fd, int first, int pages, int prot, int flags)
{
	char *base = mmap(NULL, (size_t)pages * PAGE, prot, flags, fd, (off_t)first * PAGE);

	if (base == MAP_FAILED)
		die("cannot map");
	return base;
}

static int *shuffled(int pages)
{
	int *order = malloc(pages * sizeof(*order));

	if (!order)
		die("out of memory");
	for (int i = 0; i < pages; i++)
		order[i] = (long)i * STRIDE % pages;
	return order;
}

static void run_touch(int fd, int first, int pages, int flags, bool is_store)
{
	char *base = map(fd, first, pages, PROT_READ | PROT_WRITE, flags);

	if (madvise(base, (size_t)pages * PAGE, MADV_RANDOM))
		die("cannot advise");
	touch_counted(base, first, shuffled(pages), pages, is_store);
}

static void run_write(int fd, const char *path, int pages)
{
	char *base = map(fd, 0, pages, PROT_READ, MAP_SHARED);
	size_t size = (size_t)pages * PAGE;
	struct rusage before, after;
	char *copy;
	int to;
	long result;

	if (asprintf(&copy, "%s.copy", path) < 0)
		die("out of memory");
	to = open_file(copy, O_WRONLY | O_CREAT | O_TRUNC);
	/* The first use of syscall(2) may fault in the dynamic loader. */
	thread_id();
	getrusage(RUSAGE_SELF, &after);
	getrusage(RUSAGE_SELF, &before);
	result = syscall(SYS_write, to, base, size);
	getrusage(RUSAGE_SELF, &after);
	note("write", to, 0, size, result);
	report(&log_here, 1);
	say("{\"op\": \"touch\", \"pid\": %d, \"addr\": \"%p\", \"is_write\": false, \"order\": null, \"minflt\": %ld, "
	    "\"majflt\": %ld}\n",
	    getpid(), (void *)base, after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt);
}

static void run_remap(int fd)
{
	static const int old_order[] = {5, 0, 3}, new_order[] = {12, 7, 9, 8, 11};
	char *base = map(fd, 0, 7, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	char *room = mmap(NULL, 13 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *moved;

	if (room == MAP_FAILED)
		die("cannot map");
	touch_counted(base, 0, old_order, 3, true);
	moved = mremap(base, 7 * PAGE, 13 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	if (moved != room)
		die("cannot remap");
	touch_counted(moved, 0, new_order, 5, true);
	if (munmap(moved + 6 * PAGE, PAGE) || munmap(moved, 6 * PAGE) || munmap(moved + 7 * PAGE, 6 * PAGE))
		die("cannot unmap");
	say("{\"op\": \"remap\", \"pid\": %d, \"old_addr\": \"%p\", \"addr\": \"%p\"}\n", getpid(), (void *)base,
	    (void *)moved);
}

static void run_both(int fd, int pages)
{
	char *base = map(fd, 0, pages, PROT_READ, MAP_SHARED), data[PAGE];
	int count = (pages + 15) / 16;
	int *order = malloc(count * sizeof(*order));

	if (!order)
		die("out of memory");
	for (int i = 0; i < count; i++)
		order[i] = 16 * i;
	for (long i = 0; i < 11; i++)
		note("pread64", fd, i * PAGE, PAGE, syscall(SYS_pread64, fd, data, (long)PAGE, i * PAGE));
	touch_counted(base, 0, order, count, false);
	report(&log_here, 1);
}

int main(int argc, char **argv)
{
	int fd, pages;

	if (argc != 4)
		usage("maps VARIANT FILE PAGES");
	pages = number(argv[3]);
	fd = open_file(argv[2], strcmp(argv[1], "both") ? O_RDWR : O_RDONLY);
	if (!strcmp(argv[1], "read"))
		run_touch(fd, 0, pages, MAP_SHARED, false);
	else if (!strcmp(argv[1], "shared"))
		run_touch(fd, 0, pages, MAP_SHARED, true);
	else if (!strcmp(argv[1], "private"))
		run_touch(fd, 0, pages, MAP_PRIVATE, true);
	else if (!strcmp(argv[1], "window"))
		run_touch(fd, 2, pages, MAP_PRIVATE, true);
	else if (!strcmp(argv[1], "populate"))
		run_touch(fd, 0, pages, MAP_SHARED | MAP_POPULATE, false);
	else if (!strcmp(argv[1], "write"))
		run_write(fd, argv[2], pages);
	else if (!strcmp(argv[1], "remap"))
		run_remap(fd);
	else if (!strcmp(argv[1], "both"))
		run_both(fd, pages);
	else
		usage("maps VARIANT FILE PAGES: no such variant");
	return 0;
}
