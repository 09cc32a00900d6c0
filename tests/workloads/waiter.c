// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * waiter VARIANT …: programs that are busy already when somebody begins to watch them.
 *   go FILE MAPPED:          opens FILE and makes 2 reads of 7 bytes, maps MAPPED (MAP_PRIVATE) and stores to its page
 *                            0, prints "ready", waits for SIGUSR1 or a line on stdin; then 13 reads of 7 bytes and
 *                            stores to pages 1 … 11 of the mapping, a fault each
 *   zombie FILE MAPPED:      the same, with a child that has ended and is not waited for
 *   leaderless FILE MAPPED:  the same, done by a second thread after the first has ended
 *   steady FILE COUNTERS:    a process, its child, grandchild and great-grandchild, each reading 1 byte by pread64 at
 *                            offset 0, 1, 2, … of FILE (past its end too) until COUNTERS says stop
 *   forks FILE COUNTERS:     a process that keeps making children, one at a time; child k reads at offsets 8k … 8k + 6,
 *                            7 calls
 * COUNTERS is a file of at least 64 bytes: 64-bit word 0 is set by the watcher to stop, word 1 + n counts what process
 * n has done, in "forks" word 1 the children that have ended. Both print each process's exact count at the end.
 */
#include "work.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>

enum { SIZE = 7, READS = 13, TOUCHES = 11, DEPTH = 3, CHILD_CALLS = 7, CHILD_SPAN = 8 };

static void on_signal(int number)
{
	(void)number;
}

static void wait_for_go(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t blocked, open_set;
	fd_set fds;

	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, &open_set);
	sigaction(SIGUSR1, &action, NULL);
	say("ready\n");
	FD_ZERO(&fds);
	FD_SET(STDIN_FILENO, &fds);
	pselect(STDIN_FILENO + 1, &fds, NULL, NULL, NULL, &open_set);
}

static void reads(int fd, int calls, long at)
{
	char data[SIZE];

	for (int i = 0; i < calls; i++)
		note("read", fd, at + i * SIZE, SIZE, syscall(SYS_read, fd, data, (long)SIZE));
}

static void *map_file(int fd, size_t size, int flags)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (base == MAP_FAILED)
		die("cannot map");
	return base;
}

static void run_go(const char *path, const char *mapped)
{
	int fd = open_file(path, O_RDONLY);
	volatile char *base = map_file(open_file(mapped, O_RDWR), (TOUCHES + 1) * PAGE, MAP_PRIVATE);

	reads(fd, 2, 0);
	base[0] = 1;
	wait_for_go();
	log_here.count = 0;
	reads(fd, READS, 2 * SIZE);
	for (int i = 1; i <= TOUCHES; i++)
		base[i * PAGE] = 1;
	for (int i = 1; i <= TOUCHES; i++)
		note("touch", NONE, i * PAGE, NONE, 0);
	report(&log_here, 1);
}

static char **args;

static void *go_without_leader(void *unused)
{
	(void)unused;
	wait_for_leader();
	run_go(args[2], args[3]);
	return NULL;
}

static void leave_zombie(void)
{
	siginfo_t info;
	pid_t child = fork();

	if (child < 0)
		die("cannot fork");
	if (!child)
		_exit(0);
	if (waitid(P_PID, child, &info, WEXITED | WNOWAIT))
		die("cannot wait");
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static void run_steady(const char *path, atomic_ullong *counters, int level)
{
	int fd = open_file(path, O_RDONLY);
	long calls = 0;
	pid_t child = level < DEPTH ? fork() : 0;
	char data;

	if (child < 0)
		die("cannot fork");
	if (level < DEPTH && !child) {
		run_steady(path, counters, level + 1);
		_exit(0);
	}
	if (level == 0)
		while (!atomic_load(&counters[1 + DEPTH]))
			pause_briefly();
	if (level == 0)
		say("ready\n");
	while (!atomic_load(&counters[0])) {
		syscall(SYS_pread64, fd, &data, 1L, calls++);
		atomic_store(&counters[1 + level], calls);
		pause_briefly();
	}
	if (child && waitpid(child, NULL, 0) != child)
		die("cannot wait");
	say("{\"op\": \"pread64\", \"pid\": %d, \"level\": %d, \"count\": %ld}\n", getpid(), level, calls);
}

static void run_forks(const char *path, atomic_ullong *counters)
{
	int fd = open_file(path, O_RDONLY);
	long children = 0;
	char data;

	for (; !atomic_load(&counters[0]); children++) {
		pid_t child = fork();

		if (child < 0)
			die("cannot fork");
		if (!child) {
			for (long i = 0; i < CHILD_CALLS; i++)
				syscall(SYS_pread64, fd, &data, 1L, CHILD_SPAN * children + i);
			_exit(0);
		}
		if (waitpid(child, NULL, 0) != child)
			die("cannot wait");
		atomic_store(&counters[1], children + 1);
		if (!children)
			say("ready\n");
	}
	say("{\"op\": \"fork\", \"pid\": %d, \"count\": %ld}\n", getpid(), children);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		usage("waiter VARIANT FILE MAPPED");
	args = argv;
	if (!strcmp(argv[1], "leaderless")) {
		pthread_t thread;

		errno = pthread_create(&thread, NULL, go_without_leader, NULL);
		if (errno)
			die("cannot create a thread");
		pthread_exit(NULL);
	}
	if (!strcmp(argv[1], "zombie"))
		leave_zombie();
	if (!strcmp(argv[1], "go") || !strcmp(argv[1], "zombie"))
		run_go(argv[2], argv[3]);
	else if (!strcmp(argv[1], "steady"))
		run_steady(argv[2], map_file(open_file(argv[3], O_RDWR), 64, MAP_SHARED), 0);
	else if (!strcmp(argv[1], "forks"))
		run_forks(argv[2], map_file(open_file(argv[3], O_RDWR), 64, MAP_SHARED));
	else
		usage("waiter VARIANT FILE MAPPED: no such variant");
	return 0;
}
