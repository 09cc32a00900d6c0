// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * aio VARIANT FILE …: the kernel's asynchronous I/O (io_submit and its kin), by system calls. Each iocb that was handed
 * over is a step; the result is that of its event, or io_submit's error; -9999 stands for one that was never taken.
 *
 *   KIND FILE COUNT DEPTH [OPTION …]: COUNT transfers, DEPTH at a time. KIND is pread, pwrite, preadv or pwritev.
 *       Iocb i moves 4100 bytes at slot 7 i (modulo 61) of 4100 bytes; vectors have three pieces of 1000, 3001 and 99
 *       bytes. FILE holds the 32-bit numbers 0, 1, 2 …, so what was read tells where: that is the offset noted of a
 *       read. Write i writes the number i + 1 all over.
 *         pgetevents: events are taken by io_pgetevents
 *         single:     one event at a time
 *         memory:     events are taken from the ring in memory, without a system call
 *         append:     O_APPEND, at offset 5 i
 *         rwf_append: without O_APPEND, but each iocb has RWF_APPEND, at offset 5 i
 *         noappend:   O_APPEND, but each iocb has RWF_NOAPPEND, at its slot
 *         direct:     O_DIRECT, 4096 bytes, in pieces of 1024, 2560 and 512
 *   sync FILE:          1 pwrite, 3 fsync, 2 fdsync
 *   fail FILE:          6 iocbs that fail, each handed over alone
 *   short FILE:         19 preads of 4100 bytes, whatever the file's length
 *   middle FILE:        5 iocbs at once, of which the third is bad: io_submit takes 2, then none, then 2
 *   bulk FILE COUNT:    COUNT preads of 4 bytes by one io_submit
 *   threads FILE COUNT: one thread submits COUNT preads, another takes the events
 *   contexts FILE:      13 preads in each of two contexts, by an iocb of its own; events are taken in the other order
 *   reuse FILE:         1 iocb that is used 7 times; its events are taken from memory
 *   left FILE:          5 preads whose events nobody takes
 *   forked FILE COUNT:  COUNT children at once make 10 preads each, one at a time, all by an iocb at the same address;
 *                       each event is taken 5 ms later
 *   orphans FILE COUNT: 17 children, one after the other, hand over COUNT preads and end without taking an event, which
 *                       are no steps; 1.1 s later 61 preads
 *   negative FILE:      an io_submit of −1 iocbs, which is refused and no step, then 1 pread
 *   gone FILE:          3 preads through a descriptor that is closed before the events are taken
 *   poll FILE:          an iocb that waits for a pipe, then 1 pread
 */
#include "work.h"
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

enum { SIZE = 4100, DIRECT_SIZE = 4096, SLOTS = 61, MAX_DEPTH = 64, CLOSED_FD = 987, NO_RESULT = -9999, PIECES = 3 };
enum { MAX_BULK = 4096, EVENTS = 256 };
enum { OWN_READS = 10, ORPHANED = 17, SOON_NS = 5000000, PAUSE_S = 1, PAUSE_NS = 100000000 };

/* Younger than some headers. */
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

/* What the kernel maps where the context's number points to (fs/aio.c). */
struct aio_ring {
	unsigned int id;
	unsigned int nr;
	unsigned int head;
	unsigned int tail;
	unsigned int magic;
	unsigned int compat_features;
	unsigned int incompat_features;
	unsigned int header_length;
	struct io_event events[];
};

static char buffers[MAX_DEPTH][8192] __attribute__((aligned(PAGE)));
static struct iovec pieces[MAX_DEPTH][PIECES];
static struct iocb iocbs[MAX_BULK];
static struct iocb *pointers[MAX_BULK];

static struct options {
	bool pgetevents, single, memory, append, rwf_append, noappend, direct;
} options;

static aio_context_t make_context(unsigned int room)
{
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, room, &context))
		die("cannot make a context");
	return context;
}

/* Fills in one iocb and notes it. */
static struct iocb *prepare(int number, unsigned int opcode, const char *op, int fd, void *data, long long size,
			    long long offset)
{
	pointers[number] = &iocbs[number];
	iocbs[number] = (struct iocb){
		.aio_data = log_here.count,
		.aio_lio_opcode = opcode,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)data,
		.aio_nbytes = size,
		.aio_offset = offset,
	};
	note(op, fd, offset, size, NO_RESULT);
	return &iocbs[number];
}

static struct iocb *prepare_pread(int number, int fd, void *data, long long size, long long offset)
{
	return prepare(number, IOCB_CMD_PREAD, "pread", fd, data, size, offset);
}

static void submit(aio_context_t context, long count)
{
	long result = syscall(SYS_io_submit, context, count, pointers);

	if (result != count)
		die("io_submit took %ld of %ld", result, count);
}

/* Events that are there already, from memory. */
static long peek(aio_context_t context, struct io_event *events, long count)
{
	struct aio_ring *ring = (void *)context;
	long taken = 0;

	if (ring->magic != 0xa10a10a1)
		errno = 0, die("this is no ring");
	while (taken < count) {
		unsigned int head = ring->head;

		if (head == __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE))
			break;
		events[taken++] = ring->events[head];
		__atomic_store_n(&ring->head, (head + 1) % ring->nr, __ATOMIC_RELEASE);
	}
	return taken;
}

static long take(aio_context_t context, struct io_event *events, long least, long count)
{
	long result;

	if (options.memory)
		return peek(context, events, count);
	if (options.pgetevents)
		result = syscall(SYS_io_pgetevents, context, least, count, events, NULL, NULL);
	else
		result = syscall(SYS_io_getevents, context, least, count, events, NULL);
	if (result < 0)
		die("cannot take events");
	return result;
}

/* Takes that many events and notes the results. */
static void await(aio_context_t context, long count)
{
	struct io_event events[EVENTS];

	while (count) {
		long wanted = options.single ? 1 : count < EVENTS ? count : EVENTS;
		long taken = take(context, events, 1, wanted);

		for (long i = 0; i < taken; i++)
			log_here.steps[events[i].data].result = events[i].res;
		count -= taken;
	}
}

static long complete(aio_context_t context, long count)
{
	submit(context, count);
	await(context, count);
	return log_here.steps[log_here.count - 1].result;
}

/* --- transfers */

static const struct kind {
	const char *name;
	unsigned int opcode;
	bool is_write;
	bool is_vector;
} kinds[] = {
	{"pread", IOCB_CMD_PREAD, false, false},
	{"preadv", IOCB_CMD_PREADV, false, true},
	{"pwrite", IOCB_CMD_PWRITE, true, false},
	{"pwritev", IOCB_CMD_PWRITEV, true, true},
};

static void parse_option(const char *name)
{
	static const struct {
		const char *name;
		bool *is_set;
	} known[] = {
		{"pgetevents", &options.pgetevents}, {"single", &options.single},
		{"memory", &options.memory},	     {"append", &options.append},
		{"rwf_append", &options.rwf_append}, {"noappend", &options.noappend},
		{"direct", &options.direct},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (!strcmp(known[i].name, name)) {
			*known[i].is_set = true;
			return;
		}
	errno = 0, die("no such option: %s", name);
}

static void prepare_transfer(const struct kind *kind, int fd, long i, int slot, int size)
{
	int first = options.direct ? 1024 : 1000, second = options.direct ? 2560 : 3001;
	long long offset = options.append || options.rwf_append ? 5 * i : i * 7 % SLOTS * size;
	struct iocb *iocb = prepare(slot, kind->opcode, kind->name, fd, buffers[slot], size, offset);

	pieces[slot][0] = (struct iovec){buffers[slot], first};
	pieces[slot][1] = (struct iovec){buffers[slot] + first, second};
	pieces[slot][2] = (struct iovec){buffers[slot] + first + second, size - first - second};
	if (kind->is_vector) {
		iocb->aio_buf = (uintptr_t)pieces[slot];
		iocb->aio_nbytes = PIECES;
	}
	iocb->aio_rw_flags = options.rwf_append ? RWF_APPEND : options.noappend ? RWF_NOAPPEND : 0;
	for (size_t word = 0; word < sizeof(buffers[slot]) / sizeof(uint32_t); word++)
		((uint32_t *)buffers[slot])[word] = kind->is_write ? i + 1 : 0;
}

static void run_transfers(const struct kind *kind, const char *path, long count, long depth)
{
	int size = options.direct ? DIRECT_SIZE : SIZE;
	int fd = open_file(path, (kind->is_write ? O_WRONLY | O_CREAT : O_RDONLY) | (options.direct ? O_DIRECT : 0) |
					 (options.append || options.noappend ? O_APPEND : 0));
	aio_context_t context = make_context(MAX_DEPTH);

	if (depth < 1 || depth > MAX_DEPTH)
		usage("aio: a depth from 1 to 64");
	for (long first = 0; first < count; first += depth) {
		long batch = count - first < depth ? count - first : depth;

		for (long i = 0; i < batch; i++)
			prepare_transfer(kind, fd, first + i, i, size);
		complete(context, batch);
		for (long i = 0; !kind->is_write && i < batch; i++) {
			struct step *step = &log_here.steps[first + i];

			if (step->result > 0)
				step->offset = *(uint32_t *)buffers[i] * 4LL;
		}
	}
}

static void run_short(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(1);
	long long offset = 0;

	for (int i = 0; i < 19; i++) {
		prepare_pread(0, fd, buffers[0], SIZE, offset);
		offset += complete(context, 1);
	}
}

static void run_sync(const char *path)
{
	int fd = open_file(path, O_WRONLY | O_CREAT);
	aio_context_t context = make_context(1);

	prepare(0, IOCB_CMD_PWRITE, "pwrite", fd, buffers[0], SIZE, 17);
	complete(context, 1);
	for (int i = 0; i < 5; i++) {
		bool is_data = i % 2;

		prepare(0, is_data ? IOCB_CMD_FDSYNC : IOCB_CMD_FSYNC, is_data ? "fdsync" : "fsync", fd, NULL, 0, 0);
		log_here.steps[log_here.count - 1].offset = log_here.steps[log_here.count - 1].size = NONE;
		complete(context, 1);
	}
}

/* --- iocbs that fail */

/* Hands over what is left from `first` on; notes the error if not even one is taken. Returns how many that were. */
static long submit_some(aio_context_t context, long first, long count, const struct step *steps)
{
	long result = syscall(SYS_io_submit, context, count - first, pointers + first);

	if (result >= 0) {
		await(context, result);
		return result;
	}
	log_here.steps[steps - log_here.steps + first].result = -errno;
	return 1;
}

static void run_fail(const char *path)
{
	int read_only = open_file(path, O_RDONLY);
	int write_only = open_file(path, O_WRONLY);
	int directory = open_file("/", O_RDONLY | O_DIRECTORY);
	aio_context_t context = make_context(8);
	const struct {
		int fd;
		bool is_write;
		void *data;
		long long offset;
	} bad[] = {
		{CLOSED_FD, false, buffers[0], 0}, {write_only, false, buffers[0], 4},
		{read_only, true, buffers[0], 8},  {read_only, false, (void *)8, 12},
		{directory, false, buffers[0], 0}, {CLOSED_FD, true, buffers[0], 16},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		prepare(0, bad[i].is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, bad[i].is_write ? "pwrite" : "pread",
			bad[i].fd, bad[i].data, SIZE, bad[i].offset);
		submit_some(context, 0, 1, &log_here.steps[log_here.count - 1]);
	}
}

static void run_middle(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(8);

	for (int i = 0; i < 5; i++)
		prepare_pread(i, i == 2 ? CLOSED_FD : fd, buffers[i], SIZE, 1000 * i);
	for (long done = 0; done < 5;)
		done += submit_some(context, done, 5, log_here.steps);
}

/* --- many, by several, again, and never */

static void run_bulk(const char *path, long count)
{
	static uint32_t words[MAX_BULK];
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(MAX_BULK);

	if (count < 1 || count > MAX_BULK)
		usage("aio: between 1 and 4096 at once");
	for (long i = 0; i < count; i++)
		prepare_pread(i, fd, &words[i], sizeof(*words), 4 * (i * 7 % count));
	complete(context, count);
	for (long i = 0; i < count; i++)
		log_here.steps[i].offset = words[i] * 4LL;
}

static struct taker {
	pthread_t thread;
	aio_context_t context;
	long count;
	long long *results;
	atomic_long taken;
} taker;

static void *take_events(void *arg)
{
	struct io_event events[7];

	(void)arg;
	while (atomic_load(&taker.taken) < taker.count) {
		long taken = take(taker.context, events, 1, 7);

		for (long i = 0; i < taken; i++)
			taker.results[events[i].data] = events[i].res;
		atomic_fetch_add(&taker.taken, taken);
	}
	return NULL;
}

static void run_threads(const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);

	taker.context = make_context(MAX_DEPTH);
	taker.count = count;
	taker.results = calloc(count, sizeof(*taker.results));
	errno = taker.results ? pthread_create(&taker.thread, NULL, take_events, NULL) : ENOMEM;
	if (errno)
		die("cannot create a thread");
	for (long i = 0; i < count; i++) {
		int slot = i % MAX_DEPTH;

		/* Until this slot is free again. */
		while (i - atomic_load(&taker.taken) >= MAX_DEPTH / 2)
			sched_yield();
		prepare_pread(slot, fd, buffers[slot], SIZE, i * 7 % SLOTS * SIZE);
		pointers[0] = &iocbs[slot];
		submit(taker.context, 1);
	}
	pthread_join(taker.thread, NULL);
	for (long i = 0; i < count; i++)
		log_here.steps[i].result = taker.results[i];
}

static void run_contexts(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t contexts[] = {make_context(16), make_context(16)};

	for (int i = 0; i < 13; i++) {
		for (int j = 0; j < 2; j++) {
			pointers[0] = prepare_pread(1 + j, fd, buffers[j], SIZE - j, 1000 * i + j);
			submit(contexts[j], 1);
		}
		for (int j = 1; j >= 0; j--)
			await(contexts[j], 1);
	}
}

static void run_reuse(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(4);

	options.memory = true;
	for (int i = 0; i < 7; i++) {
		prepare_pread(0, fd, buffers[0], SIZE, 1000 * i);
		complete(context, 1);
	}
}

static void run_left(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(8);

	for (int i = 0; i < 5; i++)
		prepare_pread(i, fd, buffers[i], SIZE, 1000 * i);
	submit(context, 5);
}

static void run_forked(const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context;

	for (long i = 0; i < count; i++) {
		pid_t child = fork();

		if (child < 0)
			die("cannot fork");
		if (child)
			continue;
		context = make_context(4);
		for (int j = 0; j < OWN_READS; j++) {
			prepare_pread(0, fd, buffers[0], SIZE, (i * OWN_READS + j) * 100);
			submit(context, 1);
			nanosleep(&(struct timespec){.tv_nsec = SOON_NS}, NULL);
			await(context, 1);
		}
		return; /* and report */
	}
	while (wait(NULL) > 0)
		;
}

static void run_orphans(const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context;

	if (count < 1 || count > MAX_BULK)
		usage("aio: between 1 and 4096 at once");
	for (int i = 0; i < ORPHANED; i++) {
		pid_t child = fork();

		if (child < 0)
			die("cannot fork");
		if (!child) {
			for (long j = 0; j < count; j++)
				prepare_pread(j, fd, buffers[0], 5, j);
			submit(make_context(count), count);
			_exit(0);
		}
		if (waitpid(child, NULL, 0) != child)
			die("no child");
	}
	nanosleep(&(struct timespec){PAUSE_S, PAUSE_NS}, NULL);
	context = make_context(1);
	for (int i = 0; i < SLOTS; i++) {
		prepare_pread(0, fd, buffers[0], SIZE, i * SIZE);
		complete(context, 1);
	}
}

static void run_negative(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(8);

	for (int i = 0; i < 5; i++)
		prepare_pread(i, fd, buffers[i], SIZE, 1000 * i);
	if (syscall(SYS_io_submit, context, -1L, pointers) != -1 || errno != EINVAL)
		die("io_submit took a negative number");
	log_here.count = 0;
	prepare_pread(5, fd, buffers[5], SIZE, 5000);
	pointers[0] = &iocbs[5];
	complete(context, 1);
}

static void run_gone(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(8);

	for (int i = 0; i < 3; i++)
		prepare_pread(i, fd, buffers[i], SIZE, 1000 * i);
	submit(context, 3);
	close(fd);
	await(context, 3);
}

static void run_poll(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	aio_context_t context = make_context(8);
	int ends[2];

	if (pipe(ends))
		die("cannot make a pipe");
	prepare(0, IOCB_CMD_POLL, "poll", ends[0], NULL, 0, 0)->aio_buf = POLLIN;
	submit(context, 1);
	if (write(ends[1], "x", 1) != 1)
		die("cannot write");
	await(context, 1);
	prepare_pread(0, fd, buffers[0], SIZE, 0);
	complete(context, 1);
}

static bool run(const char *variant, const char *path, const char *count)
{
	static const struct {
		const char *name;
		void (*run)(const char *path);
	} variants[] = {
		{"sync", run_sync},	    {"fail", run_fail},	  {"short", run_short}, {"middle", run_middle},
		{"contexts", run_contexts}, {"reuse", run_reuse}, {"left", run_left},	{"negative", run_negative},
		{"gone", run_gone},	    {"poll", run_poll},
	};

	for (size_t i = 0; i < sizeof(variants) / sizeof(*variants); i++)
		if (!strcmp(variants[i].name, variant)) {
			variants[i].run(path);
			return true;
		}
	if (count && !strcmp(variant, "bulk"))
		run_bulk(path, number(count));
	else if (count && !strcmp(variant, "forked"))
		run_forked(path, number(count));
	else if (count && !strcmp(variant, "orphans"))
		run_orphans(path, number(count));
	else if (count && !strcmp(variant, "threads"))
		run_threads(path, number(count));
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		usage("aio VARIANT FILE …");
	for (size_t i = 0; argc >= 5 && i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(kinds[i].name, argv[1]))
			continue;
		for (int option = 5; option < argc; option++)
			parse_option(argv[option]);
		run_transfers(&kinds[i], argv[2], number(argv[3]), number(argv[4]));
		report(&log_here, 1);
		return 0;
	}
	if (!run(argv[1], argv[2], argc > 3 ? argv[3] : NULL))
		usage("aio VARIANT FILE …: no such variant");
	report(&log_here, 1);
	return 0;
}
