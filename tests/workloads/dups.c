// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * dups VARIANT FILE [OTHER]: one open file under several descriptors, which share its position. All reads ask for 7
 * bytes by read(2).
 *   all:      dup, dup2 (to 61), dup3 (to 67), F_DUPFD (from 71), F_DUPFD_CLOEXEC (from 73), then 17 reads: 2 through
 *             the first descriptor and 3 through each copy, then the copies are closed (5 closes)
 *   replace:  5 reads of OTHER, dup2 over its descriptor, 7 reads of FILE through that number, a dup2 onto itself
 *   fork:     2 reads, then 5 in a child, then 3 in the parent, at one position
 *   exec:     2 reads, then the program replaces itself and makes 5 reads through the descriptor it inherited
 */
#include "work.h"
#include <sys/wait.h>

enum { SIZE = 7 };

static char data[SIZE];

static void reads(int fd, int calls)
{
	for (int i = 0; i < calls; i++)
		note("read", fd, NONE, SIZE, syscall(SYS_read, fd, data, (long)SIZE));
}

static void run_all(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	int copies[5];

	copies[0] = note("dup", fd, NONE, NONE, syscall(SYS_dup, fd));
#ifdef SYS_dup2
	copies[1] = note("dup2", fd, NONE, NONE, syscall(SYS_dup2, fd, 61));
#else
	copies[1] = note("dup3", fd, NONE, NONE, syscall(SYS_dup3, fd, 61, 0));
#endif
	copies[2] = note("dup3", fd, NONE, NONE, syscall(SYS_dup3, fd, 67, O_CLOEXEC));
	copies[3] = note("fcntl", fd, NONE, NONE, syscall(SYS_fcntl, fd, F_DUPFD, 71));
	copies[4] = note("fcntl", fd, NONE, NONE, syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 73));
	reads(fd, 2);
	for (int i = 0; i < 5; i++)
		reads(copies[i], 3);
	for (int i = 0; i < 5; i++)
		note("close", copies[i], NONE, NONE, syscall(SYS_close, copies[i]));
}

static void run_replace(const char *path, const char *other_path)
{
	int fd = open_file(path, O_RDONLY);
	int other = open_file(other_path, O_RDONLY);

	reads(other, 5);
#ifdef SYS_dup2
	note("dup2", fd, NONE, NONE, syscall(SYS_dup2, fd, other));
	reads(other, 7);
	note("dup2", fd, NONE, NONE, syscall(SYS_dup2, fd, fd));
#else
	note("dup3", fd, NONE, NONE, syscall(SYS_dup3, fd, other, 0));
	reads(other, 7);
#endif
}

static void run_fork(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	pid_t child;

	reads(fd, 2);
	report(&log_here, 1);
	log_here.count = 0;
	child = fork();
	if (child < 0)
		die("cannot fork");
	if (child && waitpid(child, NULL, 0) != child)
		die("cannot wait");
	reads(fd, child ? 3 : 5);
}

static void run_exec(char **argv)
{
	int fd = open(argv[2], O_RDONLY);
	char text[16];
	char *again[] = {argv[0], "inherited", text, NULL};

	reads(fd, 2);
	report(&log_here, 1);
	snprintf(text, sizeof(text), "%d", fd);
	execv(argv[0], again);
	die("cannot execute %s", argv[0]);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		usage("dups VARIANT FILE [OTHER]");
	if (!strcmp(argv[1], "all"))
		run_all(argv[2]);
	else if (!strcmp(argv[1], "replace") && argc == 4)
		run_replace(argv[2], argv[3]);
	else if (!strcmp(argv[1], "fork"))
		run_fork(argv[2]);
	else if (!strcmp(argv[1], "exec"))
		run_exec(argv);
	else if (!strcmp(argv[1], "inherited"))
		reads(number(argv[2]), 5);
	else
		usage("dups VARIANT FILE [OTHER]: no such variant");
	report(&log_here, 1);
	return 0;
}
