// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * original VARIANT …: what the tracer that FLAK replaces gets wrong (tests/kernel/test_original_faults.py).
 *   offsets FILE:     calls with an offset of their own, noted with it: 3 pread64, 5 pwrite64, 7 preadv, 11 pwritev, 3
 *                     preadv2, 5 pwritev2, 7 mmap, 5 lseek; FILE has 64 pages or more
 *   order FILE:       FILE is opened once and mapped MAP_PRIVATE; 13 times a pread64 of page i and a store to page i of
 *                     the mapping
 *   paths DIR STRINGS: makes and opens files by long and by relative names: each open is noted with the path that was
 *                     passed and the descriptor it starts from; then an open that fails, of the name that the page 0 of
 *                     the file STRINGS holds, which is mapped and not touched before
 *   modern FILE:      the calls that are missing there: see run_modern()
 *   roads FILE:       what moves bytes by other roads: 3 sendfile, 5 copy_file_range, 7 splice; 2 io_submit; 3
 *                     io_uring_enter
 *   meta DIR:         every call about names, times and sizes, once each, in the order of run_meta()
 *   clock FILE:       17 pread64 calls, each with the time of CLOCK_BOOTTIME before and behind it and CLOCK_REALTIME
 *                     before it
 *   fds FILE OTHER:   descriptors that mean one file after the other: see run_fds(); reads are noted with the path
 */
#include "work.h"
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>

enum { ODD = 4099 };

static char data[2 * PAGE];

/* --- offsets */

static void positioned(const char *op, int nr, int fd, bool is_vector, int calls, long base)
{
	struct iovec pieces[] = {{data, 1000}, {data + 1000, 3099}};

	for (int i = 0; i < calls; i++) {
		long offset = base + (calls - i) * ODD;
		long result;

		if (is_vector)
			result = syscall(nr, fd, pieces, 2L, offset, 0L, 0L);
		else
			result = syscall(nr, fd, data, (long)ODD, offset);
		note(op, fd, offset, ODD, result);
	}
}

static void run_offsets(const char *path)
{
	int fd = open_file(path, O_RDWR);

	positioned("pread64", SYS_pread64, fd, false, 3, 11);
	positioned("pwrite64", SYS_pwrite64, fd, false, 5, 13);
	positioned("preadv", SYS_preadv, fd, true, 7, 17);
	positioned("pwritev", SYS_pwritev, fd, true, 11, 19);
	positioned("preadv2", SYS_preadv2, fd, true, 3, 23);
	positioned("pwritev2", SYS_pwritev2, fd, true, 5, 29);
	for (int i = 0; i < 7; i++) {
		long offset = (7 - i) * 3 * PAGE;
		void *base = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, offset);

		note("mmap", fd, offset, 2 * PAGE, base == MAP_FAILED ? -1 : 0);
	}
	for (int i = 0; i < 5; i++)
		note("lseek", fd, 101 * i + 7, NONE, syscall(SYS_lseek, fd, 101L * i + 7, SEEK_SET));
}

/* --- order */

static void run_order(const char *path)
{
	int fd = open_file(path, O_RDWR);
	volatile char *base = mmap(NULL, 13 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	if (base == MAP_FAILED)
		die("cannot map");
	for (int i = 0; i < 13; i++) {
		syscall(SYS_pread64, fd, data, 1L, (long)i * PAGE);
		base[i * PAGE] = 1;
	}
}

/* --- paths */

static int open_noted(int at, const char *path, int flags, int mode)
{
	return note_path("openat", path, at == AT_FDCWD ? NONE : at, mode, flags,
			 syscall(SYS_openat, at, path, flags, mode));
}

static void run_paths(const char *dir, const char *strings)
{
	char part[102], *path = strdup(dir), *longer;
	int at, fd = open_file(strings, O_RDONLY);
	char *mapped = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);

	if (mapped == MAP_FAILED)
		die("cannot map %s", strings);
	memset(part, 'p', 101);
	part[101] = 0;
	for (int i = 0; i < 5; i++) {
		if (asprintf(&longer, "%s/%s", path, part) < 0 || mkdir(longer, 0755))
			die("cannot make a folder in %s", path);
		path = longer;
		if (asprintf(&longer, "%s/file", path) < 0)
			die("out of memory");
		close(open_noted(AT_FDCWD, longer, O_RDWR | O_CREAT, 0640));
	}
	at = open_file(path, O_RDONLY | O_DIRECTORY);
	close(open_noted(at, "file", O_RDONLY, 0));
	close(open_noted(at, "../file", O_WRONLY | O_APPEND, 0));
	if (chdir(path))
		die("cannot change to %s", path);
	close(open_noted(AT_FDCWD, "file", O_RDONLY | O_NOFOLLOW, 0));
	open_noted(AT_FDCWD, mapped, O_RDONLY, 0);
}

/* --- modern */

static void run_modern(const char *path)
{
	struct open_how how = {.flags = O_RDWR};
	struct iovec piece = {data, 7};
	int fd = note("openat2", NONE, NONE, NONE, syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how)));
	char *base;

	for (int i = 0; i < 3; i++)
		note("preadv2", fd, 7 * i, 7, syscall(SYS_preadv2, fd, &piece, 1L, 7L * i, 0L, 0L));
	for (int i = 0; i < 5; i++)
		note("pwritev2", fd, 7 * i, 7, syscall(SYS_pwritev2, fd, &piece, 1L, 7L * i, 0L, 0L));
	for (int i = 0; i < 3; i++)
		note("lseek", fd, 11, NONE, syscall(SYS_lseek, fd, 11L, SEEK_SET));
	note("fcntl", fd, NONE, NONE, syscall(SYS_fcntl, fd, F_DUPFD, 71));
	note("fcntl", fd, NONE, NONE, syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 73));
	note("dup3", fd, NONE, NONE, syscall(SYS_dup3, fd, 79, O_CLOEXEC));
	base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
	note("mmap", fd, PAGE, PAGE, base == MAP_FAILED ? -1 : 0);
	base = mremap(base, PAGE, 3 * PAGE, MREMAP_MAYMOVE);
	note("mremap", NONE, PAGE, 3 * PAGE, base == MAP_FAILED ? -1 : 0);
	note("munmap", NONE, PAGE, 3 * PAGE, syscall(SYS_munmap, base, 3L * PAGE));
}

/* --- roads */

static void run_roads(const char *path)
{
	int fd = open_file(path, O_RDWR), other = open_file("/tmp", O_TMPFILE | O_RDWR), ends[2], ring;
	struct iocb read_it = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = (uintptr_t)data};
	struct iocb *list[] = {&read_it};
	struct io_uring_params params = {};
	aio_context_t context = 0;
	struct io_event event;

	if (pipe(ends))
		die("cannot make a pipe");
	read_it.aio_nbytes = 7;
	for (int i = 0; i < 3; i++)
		note("copy", fd, NONE, 7, syscall(SYS_sendfile, other, fd, NULL, 7L));
	for (int i = 0; i < 5; i++)
		note("copy", fd, NONE, 7, syscall(SYS_copy_file_range, fd, NULL, other, NULL, 7L, 0L));
	for (int i = 0; i < 7; i++)
		note("copy", fd, NONE, 7, syscall(SYS_splice, fd, NULL, ends[1], NULL, 7L, 0L));
	if (syscall(SYS_io_setup, 1L, &context))
		die("cannot set up asynchronous I/O");
	for (int i = 0; i < 2; i++) {
		note("aio", fd, 0, 7, syscall(SYS_io_submit, context, 1L, list));
		syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL);
	}
	/* Where it is switched off, the calls are made all the same, and fail. */
	ring = syscall(SYS_io_uring_setup, 4L, &params);
	for (int i = 0; i < 3; i++)
		note("io_uring", ring, NONE, NONE, syscall(SYS_io_uring_enter, ring, 0L, 0L, 0L, NULL, 0L));
}

/* --- meta */

static void run_meta(const char *dir)
{
	char list[4096];
	struct statfs fs;
	struct statx x;
	struct stat st;
	char *base;
	int fd;

#define CALL(op, ...) note(#op, NONE, NONE, NONE, syscall(SYS_##op, __VA_ARGS__))
	if (chdir(dir))
		die("cannot change to %s", dir);
	fd = open_file("f", O_RDWR | O_CREAT);
	if (write(fd, data, 3 * PAGE / 2) < 0)
		die("cannot write");
	CALL(newfstatat, AT_FDCWD, "f", &st, 0);
	CALL(statx, AT_FDCWD, "f", 0, STATX_SIZE, &x);
	CALL(fstat, fd, &st);
	CALL(statfs, "f", &fs);
	CALL(fstatfs, fd, &fs);
	CALL(faccessat, AT_FDCWD, "f", R_OK);
	CALL(renameat2, AT_FDCWD, "f", AT_FDCWD, "g", 0);
	CALL(linkat, AT_FDCWD, "g", AT_FDCWD, "h", 0);
	CALL(symlinkat, "g", AT_FDCWD, "s");
	CALL(unlinkat, AT_FDCWD, "h", 0);
	CALL(mkdirat, AT_FDCWD, "d", 0755);
	CALL(truncate, "g", 101L);
	CALL(ftruncate, fd, 3L * PAGE);
	CALL(fallocate, fd, 0, 0L, 4L * PAGE);
	CALL(fsync, fd);
	CALL(fdatasync, fd);
	CALL(sync_file_range, fd, 0L, 101L, SYNC_FILE_RANGE_WRITE);
	CALL(readahead, fd, 0L, 101L);
	CALL(fadvise64, fd, 0L, 101L, POSIX_FADV_RANDOM);
	CALL(getdents64, open_file(".", O_RDONLY | O_DIRECTORY), list, sizeof(list));
	base = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	CALL(madvise, base, (long)PAGE, MADV_RANDOM);
	CALL(msync, base, (long)PAGE, MS_SYNC);
	CALL(close_range, fd, fd, 0);
#undef CALL
}

/* --- clock */

static long long clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void run_clock(const char *path)
{
	long long before[17], behind[17], wall[17];
	int fd = open_file(path, O_RDONLY);

	for (int i = 0; i < 17; i++) {
		wall[i] = clock_ns(CLOCK_REALTIME);
		before[i] = clock_ns(CLOCK_BOOTTIME);
		syscall(SYS_pread64, fd, data, 1L, (long)i);
		behind[i] = clock_ns(CLOCK_BOOTTIME);
	}
	for (int i = 0; i < 17; i++)
		say("{\"op\": \"pread64\", \"wall\": %lld, \"before\": %lld, \"behind\": %lld}\n", wall[i], before[i],
		    behind[i]);
}

/* --- fds */

static void reads(const char *path, int fd, int calls)
{
	for (int i = 0; i < calls; i++)
		note_path("read", path, fd, NONE, 7, syscall(SYS_read, fd, data, 7L));
}

static void run_fds(const char *path, const char *other)
{
	int fd = open_file(path, O_RDONLY), copy, again;
	volatile char *base;
	struct stat st;

	reads(path, fd, 3);
	close(fd);
	again = open_file(other, O_RDWR);
	if (again != fd)
		errno = 0, die("the number was not given out again");
	reads(other, again, 5);
	copy = dup(again);
	if (stat(path, &st) || fstat(again, &st))
		die("cannot stat %s", path);
	reads(other, copy, 7);
	base = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, again, 0);
	close(again);
	reads(other, copy, 2);
	fd = open_file(path, O_RDONLY); /* the number again, while the mapping of OTHER made through it lives */
	for (int i = 0; i < 3; i++)
		base[i * PAGE] = 1;
	reads(path, fd, 11);
	if (dup2(copy, STDIN_FILENO) || stat(path, &st))
		die("cannot dup");
	reads(other, STDIN_FILENO, 13);
	dup2(fd, copy);
	reads(path, copy, 17);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		usage("original VARIANT …");
	if (!strcmp(argv[1], "offsets"))
		run_offsets(argv[2]);
	else if (!strcmp(argv[1], "order"))
		run_order(argv[2]);
	else if (!strcmp(argv[1], "paths") && argc == 4)
		run_paths(argv[2], argv[3]);
	else if (!strcmp(argv[1], "modern"))
		run_modern(argv[2]);
	else if (!strcmp(argv[1], "roads"))
		run_roads(argv[2]);
	else if (!strcmp(argv[1], "meta"))
		run_meta(argv[2]);
	else if (!strcmp(argv[1], "clock"))
		run_clock(argv[2]);
	else if (!strcmp(argv[1], "fds") && argc == 4)
		run_fds(argv[2], argv[3]);
	else
		usage("original VARIANT …: no such variant");
	report(&log_here, 1);
	return 0;
}
