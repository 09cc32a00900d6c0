// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * append VARIANT FILE: writes that the kernel puts at the end of the file, wherever the program asked for. Each
 * variant makes 19 calls of 101 bytes on a file that is there already: "write" and "pwrite64" (at offsets 0, 5, 10, …)
 * with O_APPEND, "pwritev2" with RWF_APPEND at offset 3, "pwritev2-here" with RWF_APPEND at -1. "race" makes 1009
 * writes of 101 bytes in each of two processes at once, each with its own O_APPEND descriptor.
 * The offset noted is the one the program passed.
 */
#include "work.h"
#include <sys/uio.h>
#include <sys/wait.h>

enum { CALLS = 19, RACE_CALLS = 1009, SIZE = 101 };

static char data[SIZE];

static void run_write(const char *path, int calls)
{
	int fd = open_file(path, O_WRONLY | O_APPEND);

	for (int i = 0; i < calls; i++)
		note("write", fd, NONE, SIZE, syscall(SYS_write, fd, data, (long)SIZE));
}

static void run_pwrite(const char *path)
{
	int fd = open_file(path, O_WRONLY | O_APPEND);

	for (int i = 0; i < CALLS; i++)
		note("pwrite64", fd, 5 * i, SIZE, syscall(SYS_pwrite64, fd, data, (long)SIZE, 5L * i));
}

static void run_flag(const char *path, long offset)
{
	int fd = open_file(path, O_WRONLY);
	struct iovec piece = {data, SIZE};

	for (int i = 0; i < CALLS; i++)
		note("pwritev2", fd, offset, SIZE, syscall(SYS_pwritev2, fd, &piece, 1L, offset, 0L, (long)RWF_APPEND));
}

static void run_race(const char *path)
{
	pid_t child = fork();

	if (child < 0)
		die("cannot fork");
	run_write(path, RACE_CALLS);
	if (child && waitpid(child, NULL, 0) != child)
		die("cannot wait");
}

int main(int argc, char **argv)
{
	if (argc != 3)
		usage("append VARIANT FILE");
	if (!strcmp(argv[1], "write"))
		run_write(argv[2], CALLS);
	else if (!strcmp(argv[1], "pwrite64"))
		run_pwrite(argv[2]);
	else if (!strcmp(argv[1], "pwritev2"))
		run_flag(argv[2], 3);
	else if (!strcmp(argv[1], "pwritev2-here"))
		run_flag(argv[2], -1);
	else if (!strcmp(argv[1], "race"))
		run_race(argv[2]);
	else
		usage("append VARIANT FILE: no such variant");
	report(&log_here, 1);
	return 0;
}
