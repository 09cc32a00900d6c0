// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * threads VARIANT FILE THREADS COUNT: threads that read at once. FILE holds 32-bit little-endian numbers 0, 1, 2, …;
 * every read takes one, so what was read tells where it was read: that is the offset noted.
 *   shared:        THREADS threads make COUNT reads each through one descriptor
 *   seek:          the same, and each seeks to one of four places before it reads
 *   own:           as shared, each with its own descriptor; they end in the order last, first, last but one, second, …
 *   leader-first:  the same, but the first thread has ended before the others begin to read
 *   exec:          one thread that is not the first reads COUNT times, then replaces the program by one that reads
 *                  COUNT times (THREADS is ignored)
 */
#include "work.h"
#include <pthread.h>
#include <stdatomic.h>

enum { MAX_THREADS = 64 };

static char **args;
static const char *path;
static int shared_fd = -1;
static int seeks;
static long calls;
static int count;
static atomic_int left;
static pthread_barrier_t start;
static struct worker {
	pthread_t thread;
	int before; /* worker that has to end before this one does, -1: none */
	struct log log;
} workers[MAX_THREADS];

static void reads(int fd)
{
	unsigned int seed = (unsigned int)gettid();

	for (long i = 0; i < calls; i++) {
		uint32_t value = 0;
		long result;

		if (seeks)
			lseek(fd, (long)(rand_r(&seed) % 4 * sizeof(value)), SEEK_SET);
		result = syscall(SYS_read, fd, &value, sizeof(value));

		note("read", fd, (long long)value * sizeof(value), sizeof(value), result);
	}
}

static void *read_own(void *arg)
{
	struct worker *worker = arg;
	int fd = shared_fd >= 0 ? shared_fd : open_file(path, O_RDONLY);

	pthread_barrier_wait(&start);
	reads(fd);
	worker->log = log_here;
	if (worker->before >= 0)
		pthread_join(workers[worker->before].thread, NULL);
	return NULL;
}

static void *read_without_leader(void *arg)
{
	struct worker *worker = arg;
	int fd = open_file(path, O_RDONLY);

	wait_for_leader();
	reads(fd);
	worker->log = log_here;
	if (atomic_fetch_sub(&left, 1) == 1)
		for (int i = 0; i < count; i++)
			report(&workers[i].log, 1);
	return NULL;
}

static void *read_then_exec(void *arg)
{
	char *again[] = {args[0], "after-exec", args[2], args[3], args[4], NULL};

	(void)arg;
	reads(open_file(path, O_RDONLY));
	report(&log_here, 1);
	execv(args[0], again);
	die("cannot execute %s", args[0]);
}

static void create(int i, void *(*body)(void *))
{
	errno = pthread_create(&workers[i].thread, NULL, body, &workers[i]);
	if (errno)
		die("cannot create a thread");
}

static void run_together(void)
{
	int last = -1;

	pthread_barrier_init(&start, NULL, count + 1);
	/* count-1, 0, count-2, 1, …: neither the order they were made in nor its reverse. */
	for (int i = 0; i < count; i++) {
		int next = i % 2 ? i / 2 : count - 1 - i / 2;

		workers[next].before = last;
		last = next;
	}
	for (int i = 0; i < count; i++)
		create(i, read_own);
	pthread_barrier_wait(&start);
	pthread_join(workers[last].thread, NULL);
	for (int i = 0; i < count; i++)
		report(&workers[i].log, 1);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		usage("threads VARIANT FILE THREADS COUNT");
	args = argv;
	path = argv[2];
	count = number(argv[3]);
	calls = number(argv[4]);
	if (count < 1 || count > MAX_THREADS)
		usage("threads: between 1 and 64 threads");
	atomic_store(&left, count);
	seeks = !strcmp(argv[1], "seek");
	if (seeks || !strcmp(argv[1], "shared")) {
		shared_fd = open_file(path, O_RDONLY);
		run_together();
	} else if (!strcmp(argv[1], "own")) {
		run_together();
	} else if (!strcmp(argv[1], "leader-first")) {
		for (int i = 0; i < count; i++)
			create(i, read_without_leader);
		pthread_exit(NULL);
	} else if (!strcmp(argv[1], "exec")) {
		create(0, read_then_exec);
		pthread_join(workers[0].thread, NULL);
	} else if (!strcmp(argv[1], "after-exec")) {
		reads(open_file(path, O_RDONLY));
		report(&log_here, 1);
	} else {
		usage("threads VARIANT FILE THREADS COUNT: no such variant");
	}
	return 0;
}
