// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * preads FILE COUNT THREADS: a tight loop of COUNT 1-byte pread64 calls in each of THREADS threads, at offsets 0, 1, …
 * 4095, 0, …; nothing else happens in between. Prints for each thread what a call cost in CPU time:
 *
 *     {"op": "pread64", "pid": 7, "tid": 8, "count": 100003, "cpu_ns": 44612345, "cpu_ns_per_call": 446.1}
 */
#include "work.h"
#include <pthread.h>
#include <time.h>

enum { MAX_THREADS = 256 };

static long calls;
static int fd;
static pthread_barrier_t start;
static struct worker {
	pthread_t thread;
	int tid;
	long long cpu_ns;
} workers[MAX_THREADS];

static long long cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void *loop(void *arg)
{
	struct worker *worker = arg;
	long long begin;
	char data;

	worker->tid = thread_id();
	pthread_barrier_wait(&start);
	begin = cpu_ns();
	for (long i = 0; i < calls; i++)
		if (syscall(SYS_pread64, fd, &data, 1L, i & (PAGE - 1)) != 1)
			die("pread64 did not read one byte");
	worker->cpu_ns = cpu_ns() - begin;
	return NULL;
}

int main(int argc, char **argv)
{
	int threads;

	if (argc != 4)
		usage("preads FILE COUNT THREADS");
	fd = open_file(argv[1], O_RDONLY);
	calls = number(argv[2]);
	threads = number(argv[3]);
	if (threads < 1 || threads > MAX_THREADS)
		usage("preads: between 1 and 256 threads");
	pthread_barrier_init(&start, NULL, threads);
	for (int i = 0; i < threads; i++) {
		errno = pthread_create(&workers[i].thread, NULL, loop, &workers[i]);
		if (errno)
			die("cannot create a thread");
	}
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	for (int i = 0; i < threads; i++)
		say("{\"op\": \"pread64\", \"pid\": %d, \"tid\": %d, \"count\": %ld, \"cpu_ns\": %lld, "
		    "\"cpu_ns_per_call\": %.1f}\n",
		    getpid(), workers[i].tid, calls, workers[i].cpu_ns, (double)workers[i].cpu_ns / calls);
	return 0;
}
