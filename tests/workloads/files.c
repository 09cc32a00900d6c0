// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * files VARIANT DIR …: accesses to choose from. DIR is absolute and empty. Reads are pread64 calls of 1 byte unless said.
 *   tree DIR:              files under several names, each made, opened, read a prime number of times, closed: see below
 *   many DIR COUNT CALLS:  COUNT files of which every 97th is called wanted-N, the others plain-N, N from 0; each is made
 *                          by open and 1 write of 101 bytes, read CALLS times, closed
 *   many-slow:             the same, with a rest of 0.2 ms after every 8th file
 *   sizes DIR:             DIR/f: pwrite64 of 101 bytes 5 times, of 4099 bytes 7 times, of 8192 bytes 11 times; pread64 of
 *                          101 bytes 13 times, of 4099 bytes 17 times, of 8192 bytes 19 times; pread64 of 8192 bytes behind
 *                          its end 3 times; pread64 of 8192 bytes to a bad address twice, of 101 bytes so once
 *   waits DIR:             DIR/f: 97 reads; DIR/fifo: 3 reads of 5 bytes in between, each of which waits 50 ms or more
 */
#include "work.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>

enum { SMALL = 101, ODD = 4099, LARGE = 8192, EVERY = 97, REST_NS = 200000, WAIT_NS = 50000000 };

static const char *dir;
static char data[LARGE];

static char *in_dir(const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", dir, name) < 0)
		die("out of memory");
	return path;
}

static void preads(int fd, long calls)
{
	for (long i = 0; i < calls; i++)
		note("pread64", fd, i, 1, syscall(SYS_pread64, fd, data, 1L, i));
}

static void rest(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static void make_and_read(const char *path, long calls)
{
	int fd = open_file(path, O_RDWR | O_CREAT);

	if (write(fd, data, SMALL) != SMALL)
		die("cannot write %s", path);
	preads(fd, calls);
	close(fd);
}

static void run_tree(void)
{
	static const char *const folders[] = {"data", "data/sub", "data.old", "other"};
	static const struct {
		const char *name;
		long calls;
	} files[] = {
		{"data/a.db", 3},      {"data/b.txt", 5},   {"data/sub/c.db", 7}, {"data/sub/[d] e*.db", 11},
		{"data.old/a.db", 13}, {"database.db", 17}, {"other/db", 19},	  {"other/n\xc3\xa4her\x1b.db", 23},
	};

	for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
		if (mkdir(in_dir(folders[i]), 0755))
			die("cannot prepare %s", dir);
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		make_and_read(in_dir(files[i].name), files[i].calls);
	/* One file under two names. */
	if (link(in_dir("data/b.txt"), in_dir("other/link.db")))
		die("cannot link");
	make_and_read(in_dir("other/link.db"), 29);
}

static void run_many(long count, long calls, bool rests)
{
	char name[64];

	for (long i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s-%ld", i % EVERY ? "plain" : "wanted", i);
		make_and_read(in_dir(name), calls);
		if (rests && i % 8 == 7)
			rest(REST_NS);
	}
}

static void pwrites(int fd, long calls, long size)
{
	for (long i = 0; i < calls; i++)
		note("pwrite64", fd, i, size, syscall(SYS_pwrite64, fd, data, size, i));
}

static void sized_preads(int fd, long calls, char *to, long size, long offset)
{
	for (long i = 0; i < calls; i++)
		note("pread64", fd, offset + i, size, syscall(SYS_pread64, fd, to, size, offset + i));
}

static void run_sizes(void)
{
	int fd = open_file(in_dir("f"), O_RDWR | O_CREAT);

	pwrites(fd, 5, SMALL);
	pwrites(fd, 7, ODD);
	pwrites(fd, 11, LARGE);
	if (ftruncate(fd, 2 * LARGE))
		die("cannot truncate");
	sized_preads(fd, 13, data, SMALL, 0);
	sized_preads(fd, 17, data, ODD, 0);
	sized_preads(fd, 19, data, LARGE, 0);
	sized_preads(fd, 3, data, LARGE, 2 * LARGE);
	sized_preads(fd, 2, (char *)8, LARGE, 0);
	sized_preads(fd, 1, (char *)8, SMALL, 0);
}

static atomic_int taken; /* reads of the fifo that have returned */

static void wait_for_progress(int reads)
{
	while (atomic_load(&taken) < reads)
		sched_yield();
}

/* Waits until the first thread sleeps, which it does in read() alone. */
static void wait_for_reader(void)
{
	char name[64], text[256];
	ssize_t size;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", getpid());
	do {
		int fd = open_file(name, O_RDONLY);

		size = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[size > 0 ? size : 0] = 0;
	} while (size <= 0 || !strstr(text, ") S "));
}

static void *write_late(void *fd)
{
	for (int i = 0; i < 3; i++) {
		wait_for_reader();
		rest(WAIT_NS);
		if (write(*(int *)fd, "12345", 5) != 5)
			die("cannot write");
		wait_for_progress(i + 1);
	}
	return NULL;
}

static void run_waits(void)
{
	char *path = in_dir("fifo");
	pthread_t writer;
	int fifo, fd;

	if (mkfifo(path, 0644))
		die("cannot prepare %s", dir);
	fifo = open_file(path, O_RDWR);
	fd = open_file(in_dir("f"), O_RDWR | O_CREAT);
	errno = pthread_create(&writer, NULL, write_late, &fifo);
	if (errno)
		die("cannot create a thread");
	for (int i = 0; i < 100; i++) {
		if (i % 50 && i != 25) {
			note("read", fd, NONE, 5, syscall(SYS_read, fd, data, 5L));
			continue;
		}
		note("read", fifo, NONE, 5, syscall(SYS_read, fifo, data, 5L));
		atomic_fetch_add(&taken, 1);
	}
	pthread_join(writer, NULL);
}

int main(int argc, char **argv)
{
	if (argc < 3 || argv[2][0] != '/')
		usage("files VARIANT DIR …");
	dir = argv[2];
	if (!strcmp(argv[1], "tree"))
		run_tree();
	else if (!strncmp(argv[1], "many", 4) && argc == 5)
		run_many(number(argv[3]), number(argv[4]), argv[1][4]);
	else if (!strcmp(argv[1], "sizes"))
		run_sizes();
	else if (!strcmp(argv[1], "waits"))
		run_waits();
	else
		usage("files VARIANT DIR …: no such variant");
	report(&log_here, 1);
	return 0;
}
