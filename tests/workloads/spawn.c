// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * spawn VARIANT FILE: processes that each make a prime number of 3-byte pread64 calls on FILE and report them.
 *   fork:         three children, one after the other, make 5, 7 and 11 calls; the parent 13, in all 36
 *   vfork:        the same, the children made by vfork and exec
 *   posix_spawn:  the same, made by posix_spawn
 *   tree:         two children each, three levels deep: 1, 2, 4 and 8 processes of 3, 5, 7 and 11 calls, in all 129
 *   child COUNT:  what the executed children are
 */
#include "work.h"
#include <spawn.h>
#include <sys/wait.h>

enum { SIZE = 3, DEPTH = 3 };

extern char **environ;
static const long child_calls[] = {5, 7, 11};
static const long level_calls[] = {3, 5, 7, 11};

static void preads(const char *path, long calls)
{
	int fd = open_file(path, O_RDONLY);
	char data[SIZE];

	for (long i = 0; i < calls; i++)
		note("pread64", fd, i * SIZE, SIZE, syscall(SYS_pread64, fd, data, (long)SIZE, i * SIZE));
	report(&log_here, 1);
}

static void wait_for(pid_t child)
{
	int status;

	if (child < 0)
		die("cannot make a child");
	if (waitpid(child, &status, 0) != child || status)
		errno = 0, die("child failed");
}

static pid_t start_fork(char **argv, long calls)
{
	pid_t child = fork();

	if (child)
		return child;
	preads(argv[2], calls);
	_exit(0);
}

static pid_t start_exec(char **argv, long calls)
{
	bool by_vfork = !strcmp(argv[1], "vfork");
	char text[16];
	char *again[] = {argv[0], "child", argv[2], text, NULL};
	pid_t child;

	snprintf(text, sizeof(text), "%ld", calls);
	if (!by_vfork) {
		errno = posix_spawn(&child, argv[0], NULL, NULL, again, environ);
		return errno ? -1 : child;
	}
	child = vfork();
	if (child)
		return child;
	execv(argv[0], again);
	_exit(127);
}

static void grow(const char *path, int level)
{
	pid_t children[2] = {0, 0};

	for (int i = 0; i < 2 && level < DEPTH; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			grow(path, level + 1);
			_exit(0);
		}
	}
	preads(path, level_calls[level]);
	for (int i = 0; i < 2 && level < DEPTH; i++)
		wait_for(children[i]);
}

int main(int argc, char **argv)
{
	bool is_fork;

	if (argc == 4 && !strcmp(argv[1], "child")) {
		preads(argv[2], number(argv[3]));
		return 0;
	}
	if (argc != 3)
		usage("spawn VARIANT FILE");
	if (!strcmp(argv[1], "tree")) {
		grow(argv[2], 0);
		return 0;
	}
	is_fork = !strcmp(argv[1], "fork");
	if (!is_fork && strcmp(argv[1], "vfork") && strcmp(argv[1], "posix_spawn"))
		usage("spawn VARIANT FILE: no such variant");
	for (int i = 0; i < 3; i++)
		wait_for(is_fork ? start_fork(argv, child_calls[i]) : start_exec(argv, child_calls[i]));
	preads(argv[2], 13);
	return 0;
}
