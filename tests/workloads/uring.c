// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * uring VARIANT …: requests through io_uring, by the kernel's own interface. Each request is a step: what was asked
 * for, and as the result what the completion said; -9999 stands for "no completion came".
 *
 *   KIND FILE COUNT DEPTH [OPTION …]: COUNT transfers, DEPTH at a time. KIND is the name of the opcode: read, readv,
 *       read_fixed, readv_fixed, write, writev, write_fixed, writev_fixed. Request i moves 4100 bytes at slot 7 i
 *       (modulo 61) of 4100 bytes; vectors have three pieces of 1000, 3001 and 99 bytes. FILE holds the 32-bit
 *       numbers 0, 1, 2 …, so what was read tells where: that is the offset noted of a read. Write i writes the
 *       number i + 1 all over.
 *         files sqpoll async defer coop iopoll link drain: registered files, and the flags of that name
 *         ring:   the ring's own descriptor is registered and closed
 *         here:   at the file's position (offset -1)
 *         append: O_APPEND, at offset 5 i
 *         rwf_append: without O_APPEND, but each request has RWF_APPEND, at offset 5 i
 *         noappend:   O_APPEND, but each request has RWF_NOAPPEND, at its slot
 *         direct: O_DIRECT, 4096 bytes, in pieces of 1024, 2560 and 512
 *         cold:   the file is taken out of the page cache first
 *   fail FILE:      7 requests that fail when they are carried out
 *   refused FILE:   5 requests that fail while the kernel parses them
 *   short FILE:     19 reads of 4100 bytes, whatever the file's length
 *   links FILE:     a chain of 7 reads of which the third fails, a chain of 5 hard links of which the second fails, a
 *                   chain of 3
 *   meta DIR:       everything that is no transfer, on files in DIR
 *   slots DIR:      files opened into slots of the table of registered files, read there, and closed
 *   splice FILE TO: from FILE to TO through a pipe, twice; the second time FILE is registered
 *   skip FILE:      11 reads that ask for no completion when they succeed, of which 3 fail, then one that asks for one
 *   chain FILE:     a chain of 6 reads whose first fails and asks for no completion when it succeeds: the others are
 *                   cancelled without a word. Ends 350 ms later
 *   rings FILE OTHER: 17 rings, one after the other, are made, make 1021 writes of 1 byte that ask for no completion when
 *                   they succeed, write i at offset i, and are closed when the file has it all; then 61 reads of OTHER through one more
 *   stale FILE OTHER: 19 times a write of 111 bytes of FILE that asks for no completion when it succeeds, which the
 *                   program makes sure of by reading, then a read of OTHER that is refused while it is parsed: by a ring
 *                   of one request, all with the same user_data
 *   overflow FILE COUNT: COUNT reads, 8 at a time, none of whose completions is taken before all have been made, by a
 *                   ring with room for 16; 350 ms later all are taken
 *   silent FILE:    requests that touch no file's content: nops, timers, polls, sockets, messages
 *   others FILE:    5 fgetxattr, 3 getxattr, 2 fsetxattr, 1 setxattr, 2 uring_cmd
 *   unknown FILE:   3 requests with an opcode that does not exist, then one read
 *   threads FILE COUNT: two threads, each with its own ring, make COUNT reads each at once
 *   second FILE COUNT:  a thread makes COUNT reads through the first thread's ring, then the first thread does
 *   fork FILE COUNT:    a child makes COUNT reads through the ring it inherited, then the parent does
 *   multishot:      one request that reads a pipe five times: a step for each completion
 *   closed FIFO:    a read that waits while its descriptor is closed
 *   waits DIR:      DIR/f: 97 reads; DIR/fifo: 3 reads of 5 bytes in between, each of which waits 50 ms or more
 *   cancel FIFO:    a read that waits until it is cancelled
 *   leave FIFO:     exits while a read of 5 bytes waits
 *   left FIFO:      a child does so, the parent ends 500 ms later; the step is the child's
 *   stay FIFO:      prints "ready PID" and stays while a read of 5 bytes waits
 *   mix DIR:        prints "ready PID", then reads of 4096 bytes of DIR/f000 … DIR/f060, 16 at a time, of file k at 4096 k
 *                   and nowhere else, all with one user_data and handed to kernel threads. Until it is killed
 *   began FIFO FILE: prints "ready PID" while two linked reads wait, 5 bytes of FIFO and 4100 bytes at 12300 of FILE;
 *                   lets them go on when a byte comes on stdin, then makes 7 more reads
 */
#include "work.h"
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

enum { SIZE = 4100, DIRECT_SIZE = 4096, SLOTS = 61, MAX_DEPTH = 64, CLOSED_FD = 987, WAITING = 5, NO_RESULT = -9999 };
enum { WAIT_NS = 50000000, LONG_NS = 350000000, PIECES = 3 };
enum { RINGS = 17, SILENT = 1021, STALE = 19, STALE_SIZE = 111, MIXED = 61, UNDER_WAY = 16 };

/* Younger than some headers. */
#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif
enum { READ_MULTISHOT = 49, FTRUNCATE = 55, READV_FIXED = 60, WRITEV_FIXED = 61, NO_SUCH_OPCODE = 200 };

struct ring {
	int fd; /* or its number among the registered ones */
	unsigned int enter_flags;
	unsigned int setup_flags;
	unsigned int *sq_tail, *sq_flags, *sq_array, sq_mask;
	unsigned int *cq_head, *cq_tail, cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	size_t sq_size, cq_size, sqes_size;
	unsigned int tail;   /* requests put in so far */
	unsigned int handed; /* of these, handed to the kernel */
};

static char buffers[MAX_DEPTH][8192] __attribute__((aligned(PAGE)));
static struct iovec pieces[MAX_DEPTH][PIECES];

static long uring_register(const struct ring *ring, unsigned int opcode, const void *arg, unsigned int count)
{
	return syscall(SYS_io_uring_register, ring->fd, opcode, arg, count);
}

static void *map_ring(int fd, size_t size, long long offset)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);

	if (memory == MAP_FAILED)
		die("cannot map the ring");
	return memory;
}

/* `completions`: room for these; 0: as much as the kernel likes. */
static void make_ring_of(struct ring *ring, unsigned int flags, unsigned int requests, unsigned int completions)
{
	struct io_uring_params params = {
		.flags = flags | (completions ? IORING_SETUP_CQSIZE : 0),
		.cq_entries = completions,
		.sq_thread_idle = 100,
	};
	size_t sq_size, cq_size, sqes_size;
	char *sq, *cq;
	int fd = syscall(SYS_io_uring_setup, requests, &params);

	if (fd < 0)
		die("cannot make a ring");
	sq_size = params.sq_off.array + params.sq_entries * sizeof(unsigned int);
	cq_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	sqes_size = params.sq_entries * sizeof(struct io_uring_sqe);
	sq = map_ring(fd, sq_size, IORING_OFF_SQ_RING);
	cq = map_ring(fd, cq_size, IORING_OFF_CQ_RING);
	*ring = (struct ring){
		.fd = fd,
		.setup_flags = flags,
		.sq_tail = (void *)(sq + params.sq_off.tail),
		.sq_flags = (void *)(sq + params.sq_off.flags),
		.sq_array = (void *)(sq + params.sq_off.array),
		.sq_mask = *(unsigned int *)(sq + params.sq_off.ring_mask),
		.cq_head = (void *)(cq + params.cq_off.head),
		.cq_tail = (void *)(cq + params.cq_off.tail),
		.cq_mask = *(unsigned int *)(cq + params.cq_off.ring_mask),
		.sqes = map_ring(fd, sqes_size, IORING_OFF_SQES),
		.cqes = (void *)(cq + params.cq_off.cqes),
		.sq_size = sq_size,
		.cq_size = cq_size,
		.sqes_size = sqes_size,
	};
}

static void make_ring(struct ring *ring, unsigned int flags)
{
	make_ring_of(ring, flags, MAX_DEPTH, 0);
}

static void close_ring(struct ring *ring)
{
	munmap((char *)ring->sq_tail - (uintptr_t)ring->sq_tail % PAGE, ring->sq_size);
	munmap((char *)ring->cq_tail - (uintptr_t)ring->cq_tail % PAGE, ring->cq_size);
	munmap(ring->sqes, ring->sqes_size);
	close(ring->fd);
}

/* The next request, with nothing but its number. */
static struct io_uring_sqe *next(struct ring *ring, unsigned int opcode, int fd)
{
	unsigned int index = ring->tail++ & ring->sq_mask;
	struct io_uring_sqe *sqe = &ring->sqes[index];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->user_data = log_here.count; /* the step that is noted next */
	ring->sq_array[index] = index;
	return sqe;
}

static struct io_uring_sqe *add_path(struct ring *ring, unsigned int opcode, const char *op, const char *path, int fd,
				     long long offset, long long size)
{
	struct io_uring_sqe *sqe = next(ring, opcode, fd);

	note_path(op, path, fd, offset, size, NO_RESULT);
	return sqe;
}

static struct io_uring_sqe *add(struct ring *ring, unsigned int opcode, const char *op, int fd, long long offset,
				long long size)
{
	return add_path(ring, opcode, op, NULL, fd, offset, size);
}

static struct io_uring_sqe *add_read(struct ring *ring, int fd, void *to, unsigned int size, long long offset)
{
	struct io_uring_sqe *sqe = add(ring, IORING_OP_READ, "read", fd, offset, size);

	sqe->addr = (uintptr_t)to;
	sqe->len = size;
	sqe->off = offset;
	return sqe;
}

static void enter(struct ring *ring, unsigned int submit, unsigned int wait)
{
	unsigned int flags = ring->enter_flags | (wait ? IORING_ENTER_GETEVENTS : 0);
	long result;

	if (ring->setup_flags & IORING_SETUP_SQPOLL) {
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP)
			flags |= IORING_ENTER_SQ_WAKEUP;
	}
	result = syscall(SYS_io_uring_enter, ring->fd, submit, wait, flags, NULL, 0L);
	if (result != (long)submit)
		die("io_uring_enter took %ld of %u requests", result, submit);
}

static bool reap(struct ring *ring, struct io_uring_cqe *cqe)
{
	unsigned int head = *ring->cq_head;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return false;
	*cqe = ring->cqes[head & ring->cq_mask];
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return true;
}

static void submit(struct ring *ring)
{
	unsigned int count = ring->tail - ring->handed;

	__atomic_store_n(ring->sq_tail, ring->tail, __ATOMIC_RELEASE);
	ring->handed = ring->tail;
	enter(ring, count, 0);
}

/* Takes that many completions and notes the results. */
static void await(struct ring *ring, unsigned int count)
{
	struct io_uring_cqe cqe;

	while (count) {
		if (!reap(ring, &cqe)) {
			enter(ring, 0, 1);
			continue;
		}
		log_here.steps[cqe.user_data].result = cqe.res;
		count--;
	}
}

static long complete(struct ring *ring)
{
	unsigned int count = ring->tail - ring->handed;

	submit(ring);
	await(ring, count);
	return log_here.steps[log_here.count - 1].result;
}

static void rest(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* --- transfers */

static const struct kind {
	const char *name;
	unsigned int opcode;
	bool is_write;
	bool is_vector;
	bool is_fixed;
} kinds[] = {
	{"read", IORING_OP_READ, false, false, false},
	{"readv", IORING_OP_READV, false, true, false},
	{"read_fixed", IORING_OP_READ_FIXED, false, false, true},
	{"readv_fixed", READV_FIXED, false, true, true},
	{"write", IORING_OP_WRITE, true, false, false},
	{"writev", IORING_OP_WRITEV, true, true, false},
	{"write_fixed", IORING_OP_WRITE_FIXED, true, false, true},
	{"writev_fixed", WRITEV_FIXED, true, true, true},
};

static struct options {
	bool files, ring, here, append, rwf_append, noappend, direct, cold;
	unsigned int setup_flags;
	unsigned char sqe_flags;
	bool link, drain;
} options;

static void parse_option(const char *name)
{
	static const struct {
		const char *name;
		bool *is_set;
		unsigned int setup_flags;
		unsigned char sqe_flags;
	} known[] = {
		{"files", &options.files, 0, IOSQE_FIXED_FILE},
		{"ring", &options.ring, 0, 0},
		{"here", &options.here, 0, 0},
		{"append", &options.append, 0, 0},
		{"rwf_append", &options.rwf_append, 0, 0},
		{"noappend", &options.noappend, 0, 0},
		{"direct", &options.direct, 0, 0},
		{"cold", &options.cold, 0, 0},
		{"link", &options.link, 0, 0},
		{"drain", &options.drain, 0, 0},
		{"async", NULL, 0, IOSQE_ASYNC},
		{"sqpoll", NULL, IORING_SETUP_SQPOLL, 0},
		{"defer", NULL, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN, 0},
		{"coop", NULL, IORING_SETUP_COOP_TASKRUN, 0},
		{"iopoll", NULL, IORING_SETUP_IOPOLL, 0},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (strcmp(known[i].name, name))
			continue;
		if (known[i].is_set)
			*known[i].is_set = true;
		options.setup_flags |= known[i].setup_flags;
		options.sqe_flags |= known[i].sqe_flags;
		return;
	}
	errno = 0, die("no such option: %s", name);
}

static void register_buffers(const struct ring *ring)
{
	struct iovec whole[MAX_DEPTH];

	for (int i = 0; i < MAX_DEPTH; i++)
		whole[i] = (struct iovec){buffers[i], sizeof(buffers[i])};
	if (uring_register(ring, IORING_REGISTER_BUFFERS, whole, MAX_DEPTH))
		die("cannot register the buffers");
}

static void register_itself(struct ring *ring)
{
	struct io_uring_rsrc_update update = {.offset = -1U, .data = ring->fd};

	if (uring_register(ring, IORING_REGISTER_RING_FDS, &update, 1) != 1)
		die("cannot register the ring");
	close(ring->fd);
	ring->fd = update.offset;
	ring->enter_flags |= IORING_ENTER_REGISTERED_RING;
}

static void add_transfer(struct ring *ring, const struct kind *kind, int fd, long i, int slot, int size)
{
	int first = options.direct ? 1024 : 1000, second = options.direct ? 2560 : 3001;
	bool appends = options.append || options.rwf_append;
	long long offset = options.here ? -1 : appends ? 5 * i : i * 7 % SLOTS * size;
	/* The second of three registered ones. */
	struct io_uring_sqe *sqe = next(ring, kind->opcode, options.files ? 1 : fd);

	note(kind->name, options.files ? NONE : fd, options.here ? NONE : offset, size, NO_RESULT);
	pieces[slot][0] = (struct iovec){buffers[slot], first};
	pieces[slot][1] = (struct iovec){buffers[slot] + first, second};
	pieces[slot][2] = (struct iovec){buffers[slot] + first + second, size - first - second};
	for (size_t word = 0; word < sizeof(buffers[slot]) / sizeof(uint32_t); word++)
		((uint32_t *)buffers[slot])[word] = kind->is_write ? i + 1 : 0;
	sqe->flags = options.sqe_flags;
	if (options.link && i % 4 != 3)
		sqe->flags |= IOSQE_IO_LINK;
	if (options.drain && i % 5 == 2)
		sqe->flags |= IOSQE_IO_DRAIN;
	sqe->addr = kind->is_vector ? (uintptr_t)pieces[slot] : (uintptr_t)buffers[slot];
	sqe->len = kind->is_vector ? PIECES : size;
	sqe->off = offset;
	sqe->rw_flags = options.rwf_append ? RWF_APPEND : options.noappend ? RWF_NOAPPEND : 0;
	sqe->buf_index = kind->is_fixed ? slot : 0;
}

static void run_transfers(const struct kind *kind, const char *path, long count, long depth)
{
	int size = options.direct ? DIRECT_SIZE : SIZE;
	int fd = open_file(path, (kind->is_write ? O_WRONLY | O_CREAT : O_RDONLY) | (options.direct ? O_DIRECT : 0) |
					 (options.append || options.noappend ? O_APPEND : 0));
	int files[] = {-1, fd, -1};
	struct ring ring;

	if (depth < 1 || depth > MAX_DEPTH)
		usage("uring: a depth from 1 to 64");
	make_ring(&ring, options.setup_flags);
	errno = options.cold ? posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) : 0;
	if (errno)
		die("cannot take %s out of the cache", path);
	if (kind->is_fixed)
		register_buffers(&ring);
	if (options.files && uring_register(&ring, IORING_REGISTER_FILES, files, 3))
		die("cannot register the files");
	if (options.files)
		close(fd);
	if (options.ring)
		register_itself(&ring);
	for (long first = 0; first < count; first += depth) {
		long batch = count - first < depth ? count - first : depth;

		for (long i = 0; i < batch; i++)
			add_transfer(&ring, kind, fd, first + i, i, size);
		complete(&ring);
		for (long i = 0; !kind->is_write && i < batch; i++) {
			struct step *step = &log_here.steps[first + i];

			if (step->result > 0)
				step->offset = *(uint32_t *)buffers[i] * 4LL;
		}
	}
}

/* Reads as above, one at a time. */
static void run_reads(struct ring *ring, int fd, char *to, long count)
{
	for (long i = 0; i < count; i++) {
		add_read(ring, fd, to, SIZE, i * 7 % SLOTS * SIZE);
		if (complete(ring) != SIZE || *(uint32_t *)to * 4LL != i * 7 % SLOTS * SIZE)
			errno = 0, die("a read went wrong");
	}
}

static void run_fail(struct ring *ring, const char *path)
{
	int read_only = open_file(path, O_RDONLY);
	int write_only = open_file(path, O_WRONLY);
	int directory = open_file("/", O_RDONLY | O_DIRECTORY);
	struct io_uring_sqe *sqe;

	add_read(ring, CLOSED_FD, buffers[0], SIZE, 0);
	complete(ring);
	sqe = add(ring, IORING_OP_WRITE, "write", CLOSED_FD, 0, SIZE);
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = SIZE;
	complete(ring);
	add_read(ring, write_only, buffers[0], SIZE, 4);
	complete(ring);
	sqe = add(ring, IORING_OP_WRITE, "write", read_only, 8, SIZE);
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = SIZE;
	sqe->off = 8;
	complete(ring);
	add_read(ring, read_only, (void *)8, SIZE, 12);
	complete(ring);
	add_read(ring, directory, buffers[0], SIZE, 0);
	complete(ring);
	add(ring, IORING_OP_FSYNC, "fsync", CLOSED_FD, NONE, NONE);
	complete(ring);
}

static void run_refused(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDONLY);
	struct io_uring_sqe *sqe;

	sqe = add(ring, IORING_OP_READV, "readv", fd, 0, NONE);
	sqe->addr = 8; /* no vector there */
	sqe->len = PIECES;
	complete(ring);
	sqe = add(ring, IORING_OP_FSYNC, "fsync", fd, NONE, NONE);
	sqe->fsync_flags = 1 << 20; /* no such flag */
	complete(ring);
	add_read(ring, fd, buffers[0], SIZE, 0)->flags = 0x80; /* nor this */
	complete(ring);
	sqe = add(ring, IORING_OP_OPENAT, "openat", AT_FDCWD, NONE, NONE);
	sqe->addr = 8; /* no path there */
	complete(ring);
	add(ring, IORING_OP_CLOSE, "close", fd, NONE, NONE)->off = 1; /* it has none */
	complete(ring);
}

static void run_short(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDONLY);
	long long offset = 0;

	for (int i = 0; i < 19; i++) {
		add_read(ring, fd, buffers[0], SIZE, offset);
		offset += complete(ring);
	}
}

static void run_links(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDONLY);
	static const struct {
		int length, failing;
		unsigned char flag;
	} chains[] = {{7, 2, IOSQE_IO_LINK}, {5, 1, IOSQE_IO_HARDLINK}, {3, -1, IOSQE_IO_LINK}};

	for (size_t i = 0; i < sizeof(chains) / sizeof(*chains); i++)
		for (int j = 0; j < chains[i].length; j++) {
			struct io_uring_sqe *sqe = add_read(ring, j == chains[i].failing ? CLOSED_FD : fd,
							    buffers[8 * i + j], SIZE, 1000 * i + j);

			if (j + 1 < chains[i].length)
				sqe->flags = chains[i].flag;
		}
	complete(ring);
}

/* --- everything but transfers */

static long open_at(struct ring *ring, int dir, const char *name, int flags, unsigned int file_index)
{
	struct io_uring_sqe *sqe = add_path(ring, IORING_OP_OPENAT, "openat", name, dir, NONE, NONE);

	sqe->addr = (uintptr_t)name;
	sqe->open_flags = flags;
	sqe->len = 0640;
	sqe->file_index = file_index;
	return complete(ring);
}

static void two_names(struct ring *ring, unsigned int opcode, const char *op, int dir, const char *from, const char *to)
{
	struct io_uring_sqe *sqe = add_path(ring, opcode, op, from, dir, NONE, NONE);

	sqe->addr = (uintptr_t)from;
	sqe->addr2 = (uintptr_t)to;
	if (opcode != IORING_OP_SYMLINKAT)
		sqe->len = dir;
	complete(ring);
}

static void unlink_at(struct ring *ring, int dir, const char *name, int flags)
{
	struct io_uring_sqe *sqe = add_path(ring, IORING_OP_UNLINKAT, "unlinkat", name, dir, NONE, NONE);

	sqe->addr = (uintptr_t)name;
	sqe->unlink_flags = flags;
	complete(ring);
}

static void stat_at(struct ring *ring, int dir, const char *name, int flags)
{
	static struct statx found;
	struct io_uring_sqe *sqe = add_path(ring, IORING_OP_STATX, "statx", name, dir, NONE, NONE);

	sqe->addr = (uintptr_t)name;
	sqe->addr2 = (uintptr_t)&found;
	sqe->len = STATX_BASIC_STATS;
	sqe->statx_flags = flags;
	complete(ring);
}

static void close_fd(struct ring *ring, int fd)
{
	add(ring, IORING_OP_CLOSE, "close", fd, NONE, NONE);
	complete(ring);
}

static void run_meta(struct ring *ring, const char *path)
{
	int dir = open_file(path, O_RDONLY | O_DIRECTORY);
	struct open_how how = {.flags = O_RDONLY};
	struct io_uring_sqe *sqe;
	void *memory;
	int fd, again;

	fd = open_at(ring, dir, "f", O_RDWR | O_CREAT, 0);
	sqe = add(ring, IORING_OP_WRITE, "write", fd, 0, 5003);
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = 5003;
	complete(ring);
	sqe = add(ring, IORING_OP_FALLOCATE, "fallocate", fd, 4096, 8209);
	sqe->off = 4096;
	sqe->addr = 8209;
	complete(ring);
	sqe = add(ring, FTRUNCATE, "ftruncate", fd, NONE, 4999);
	sqe->off = 4999;
	complete(ring);
	sqe = add(ring, IORING_OP_SYNC_FILE_RANGE, "sync_file_range", fd, 17, 4001);
	sqe->off = 17;
	sqe->len = 4001;
	sqe->sync_range_flags = SYNC_FILE_RANGE_WRITE;
	complete(ring);
	add(ring, IORING_OP_FSYNC, "fsync", fd, NONE, NONE);
	complete(ring);
	add(ring, IORING_OP_FSYNC, "fsync", fd, NONE, NONE)->fsync_flags = IORING_FSYNC_DATASYNC;
	complete(ring);
	sqe = add(ring, IORING_OP_FADVISE, "fadvise", fd, 4096, 101);
	sqe->off = 4096;
	sqe->len = 101;
	sqe->fadvise_advice = POSIX_FADV_RANDOM;
	complete(ring);
	memory = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		die("cannot map %s/f", path);
	sqe = add(ring, IORING_OP_MADVISE, "madvise", -1, NONE, PAGE);
	sqe->addr = (uintptr_t)memory;
	sqe->len = PAGE;
	sqe->fadvise_advice = MADV_WILLNEED;
	complete(ring);
	stat_at(ring, dir, "f", 0);
	stat_at(ring, fd, "", AT_EMPTY_PATH);
	stat_at(ring, dir, "missing", 0);
	sqe = add_path(ring, IORING_OP_MKDIRAT, "mkdirat", "d", dir, NONE, NONE);
	sqe->addr = (uintptr_t) "d";
	sqe->len = 0750;
	complete(ring);
	two_names(ring, IORING_OP_LINKAT, "linkat", dir, "f", "h");
	two_names(ring, IORING_OP_SYMLINKAT, "symlinkat", dir, "f", "l");
	two_names(ring, IORING_OP_RENAMEAT, "renameat", dir, "h", "g");
	unlink_at(ring, dir, "g", 0);
	unlink_at(ring, dir, "d", AT_REMOVEDIR);
	unlink_at(ring, dir, "gone", 0);
	sqe = add_path(ring, IORING_OP_OPENAT2, "openat2", "f", dir, NONE, NONE);
	sqe->addr = (uintptr_t) "f";
	sqe->addr2 = (uintptr_t)&how;
	sqe->len = sizeof(how);
	again = complete(ring);
	open_at(ring, dir, "missing", O_RDONLY, 0);
	close_fd(ring, again);
	close_fd(ring, fd);
	close_fd(ring, CLOSED_FD);
}

static void run_slots(struct ring *ring, const char *path)
{
	int dir = open_file(path, O_RDONLY | O_DIRECTORY);
	int files[] = {-1, -1, -1, -1, -1};
	struct io_uring_sqe *sqe;

	if (uring_register(ring, IORING_REGISTER_FILES, files, 5))
		die("cannot register files");
	open_at(ring, dir, "f", O_RDWR | O_CREAT, 2 + 1);
	sqe = next(ring, IORING_OP_WRITE, 2);
	note("write", NONE, 7, 4001, NO_RESULT);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = 4001;
	sqe->off = 7;
	complete(ring);
	/* Wherever there is room. */
	open_at(ring, dir, "g", O_RDWR | O_CREAT, IORING_FILE_INDEX_ALLOC);
	open_at(ring, dir, "missing", O_RDONLY, 4 + 1);
	sqe = next(ring, IORING_OP_READ, 2);
	note("read", NONE, 11, 4001, NO_RESULT);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = 4001;
	sqe->off = 11;
	complete(ring);
	sqe = next(ring, IORING_OP_CLOSE, 0);
	note("close", NONE, NONE, NONE, NO_RESULT);
	sqe->file_index = 2 + 1;
	complete(ring);
	sqe = next(ring, IORING_OP_READ, 2);
	note("read", NONE, 13, 4001, NO_RESULT);
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = 4001;
	sqe->off = 13;
	complete(ring);
}

static void splice_some(struct ring *ring, int from, long long at, int to, long long to_at, int size,
			unsigned int flags)
{
	/* The step tells of the source. */
	struct io_uring_sqe *sqe = next(ring, IORING_OP_SPLICE, to);

	note("splice", flags & SPLICE_F_FD_IN_FIXED ? NONE : from, at, size, NO_RESULT);
	sqe->off = to_at;
	sqe->splice_fd_in = from;
	sqe->splice_off_in = at;
	sqe->len = size;
	sqe->splice_flags = flags;
	complete(ring);
}

static void run_splice(struct ring *ring, const char *path, const char *target)
{
	int fd = open_file(path, O_RDONLY), to = open_file(target, O_WRONLY | O_CREAT);
	int ends[2];

	if (pipe(ends) || uring_register(ring, IORING_REGISTER_FILES, &fd, 1))
		die("cannot prepare a pipe");
	splice_some(ring, fd, 8192, ends[1], -1, 4096, 0);
	splice_some(ring, ends[0], -1, to, 123, 4096, 0);
	splice_some(ring, 0, 4099, ends[1], -1, 101, SPLICE_F_FD_IN_FIXED);
	splice_some(ring, ends[0], -1, to, -1, 101, 0);
}

/* --- requests without a completion, without a file, and without a meaning */

static void run_skip(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDONLY);

	for (int i = 0; i < 11; i++)
		add_read(ring, i % 4 == 2 ? CLOSED_FD : fd, buffers[i], SIZE, 4 * i)->flags = IOSQE_CQE_SKIP_SUCCESS;
	add_read(ring, fd, buffers[11], SIZE, 4 * 11);
	submit(ring);
	await(ring, 4);
}

static void run_chain(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDONLY);

	for (int i = 0; i < 6; i++)
		add_read(ring, i ? fd : CLOSED_FD, buffers[i], SIZE, 1000 * i)->flags = i < 5 ? IOSQE_IO_LINK : 0;
	ring->sqes[0].flags |= IOSQE_CQE_SKIP_SUCCESS;
	submit(ring);
	await(ring, 1);
	rest(LONG_NS);
}

static void add_silent_write(struct ring *ring, int fd, unsigned int size, long long offset)
{
	struct io_uring_sqe *sqe = add(ring, IORING_OP_WRITE, "write", fd, offset, size);

	sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = size;
	sqe->off = offset;
}

static void run_rings(const char *path, const char *other)
{
	int fd = open_file(path, O_RDWR | O_CREAT), from = open_file(other, O_RDONLY);
	char found[SILENT];
	struct ring ring;

	memset(buffers[0], 'x', SILENT);
	for (int i = 0; i < RINGS; i++) {
		make_ring_of(&ring, 0, 1024, 0);
		for (int j = 0; j < SILENT; j++)
			add_silent_write(&ring, fd, 1, i * SILENT + j);
		submit(&ring);
		while (pread(fd, found, SILENT, i * SILENT) != SILENT || memchr(found, 0, SILENT))
			rest(1000000);
		close_ring(&ring);
	}
	make_ring(&ring, 0);
	run_reads(&ring, from, buffers[0], SLOTS);
}

static void run_stale(const char *path, const char *other)
{
	int fd = open_file(path, O_RDWR), from = open_file(other, O_RDONLY);
	char found[STALE_SIZE];
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	struct ring ring;

	make_ring_of(&ring, 0, 1, 0);
	for (int i = 0; i < STALE; i++) {
		memset(buffers[0], 'A' + i, STALE_SIZE);
		add_silent_write(&ring, fd, STALE_SIZE, PAGE);
		ring.sqes[0].user_data = 0;
		submit(&ring);
		for (found[0] = 0; memcmp(found, buffers[0], STALE_SIZE);)
			if (pread(fd, found, STALE_SIZE, PAGE) != STALE_SIZE)
				die("cannot read %s", path);
		sqe = add_read(&ring, from, buffers[1], 222, 0);
		sqe->user_data = 0;
		sqe->ioprio = 0xffff; /* no such priority */
		submit(&ring);
		while (!reap(&ring, &cqe))
			enter(&ring, 0, 1);
		log_here.steps[log_here.count - 1].result = cqe.res;
	}
}

static void run_overflow(const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);
	struct ring ring;

	make_ring_of(&ring, 0, 8, 16);
	for (long i = 0; i < count; i++) {
		add_read(&ring, fd, buffers[i % 8], SIZE, i * 7 % SLOTS * SIZE);
		if (i % 8 == 7 || i == count - 1)
			submit(&ring);
	}
	rest(LONG_NS);
	await(&ring, count);
}

static void run_silent(struct ring *ring, const char *path)
{
	struct __kernel_timespec soon = {.tv_nsec = 1000000};
	int fd = open_file(path, O_RDONLY);
	struct io_uring_sqe *sqe;
	int ends[2];

	if (pipe(ends) || write(ends[1], "12345", 5) != 5)
		die("cannot prepare a pipe");
	for (int i = 0; i < 7; i++)
		add(ring, IORING_OP_NOP, "nop", -1, NONE, NONE);
	complete(ring);
	sqe = add(ring, IORING_OP_TIMEOUT, "timeout", -1, NONE, NONE);
	sqe->addr = (uintptr_t)&soon;
	sqe->len = 1;
	complete(ring);
	add(ring, IORING_OP_POLL_ADD, "poll_add", ends[0], NONE, NONE)->poll32_events = POLLIN;
	complete(ring);
	sqe = add(ring, IORING_OP_SOCKET, "socket", AF_UNIX, NONE, NONE);
	sqe->off = SOCK_STREAM;
	complete(ring);
	add(ring, IORING_OP_ASYNC_CANCEL, "async_cancel", -1, NONE, NONE)->addr = 4711;
	complete(ring);
	sqe = add(ring, IORING_OP_PROVIDE_BUFFERS, "provide_buffers", 3, NONE, NONE);
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = 64;
	sqe->buf_group = 1;
	complete(ring);
	/* To itself: its completion is one more, which finds the step of the message. */
	sqe = add(ring, IORING_OP_MSG_RING, "msg_ring", ring->fd, NONE, NONE);
	sqe->off = sqe->user_data;
	submit(ring);
	await(ring, 2);
	if (read(fd, buffers[0], 1) != 1)
		die("cannot read %s", path);
}

static void get_xattr(struct ring *ring, const char *path, int fd)
{
	struct io_uring_sqe *sqe;

	if (path)
		sqe = add(ring, IORING_OP_GETXATTR, "getxattr", -1, NONE, NONE);
	else
		sqe = add(ring, IORING_OP_FGETXATTR, "fgetxattr", fd, NONE, NONE);
	sqe->addr = (uintptr_t) "user.flak";
	sqe->addr2 = (uintptr_t)buffers[0];
	sqe->len = 16;
	sqe->addr3 = (uintptr_t)path;
	complete(ring);
}

static void set_xattr(struct ring *ring, const char *path, int fd)
{
	struct io_uring_sqe *sqe;

	if (path)
		sqe = add(ring, IORING_OP_SETXATTR, "setxattr", -1, NONE, NONE);
	else
		sqe = add(ring, IORING_OP_FSETXATTR, "fsetxattr", fd, NONE, NONE);
	sqe->addr = (uintptr_t) "user.flak";
	sqe->addr2 = (uintptr_t) "value";
	sqe->len = 5;
	sqe->addr3 = (uintptr_t)path;
	complete(ring);
}

static void run_others(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDWR);

	set_xattr(ring, path, -1);
	for (int i = 0; i < 2; i++)
		set_xattr(ring, NULL, fd);
	for (int i = 0; i < 3; i++)
		get_xattr(ring, path, -1);
	for (int i = 0; i < 5; i++)
		get_xattr(ring, NULL, fd);
	for (int i = 0; i < 2; i++) {
		/* A regular file takes no commands. */
		add(ring, IORING_OP_URING_CMD, "uring_cmd", fd, NONE, NONE);
		complete(ring);
	}
}

static void run_unknown(struct ring *ring, const char *path)
{
	int fd = open_file(path, O_RDONLY);

	for (int i = 0; i < 3; i++) {
		add(ring, NO_SUCH_OPCODE, "unknown", fd, NONE, NONE);
		complete(ring);
	}
	run_reads(ring, fd, buffers[0], 1);
}

/* --- who submits */

static struct worker {
	pthread_t thread;
	struct ring *ring; /* NULL: one of its own */
	int fd;
	long count;
	struct log log;
	char data[SIZE] __attribute__((aligned(4)));
} workers[2];

static pthread_barrier_t start;

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct ring own;

	if (!worker->ring) {
		make_ring(&own, 0);
		pthread_barrier_wait(&start);
	}
	run_reads(worker->ring ? worker->ring : &own, worker->fd, worker->data, worker->count);
	worker->log = log_here;
	return NULL;
}

static void run_worker(int number, struct ring *ring, int fd, long count)
{
	struct worker *worker = &workers[number];

	*worker = (struct worker){.ring = ring, .fd = fd, .count = count};
	errno = pthread_create(&worker->thread, NULL, work, worker);
	if (errno)
		die("cannot create a thread");
}

static void run_threads(const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);

	pthread_barrier_init(&start, NULL, 2);
	run_worker(0, NULL, fd, count);
	run_worker(1, NULL, fd, count);
	for (int i = 0; i < 2; i++) {
		pthread_join(workers[i].thread, NULL);
		report(&workers[i].log, 1);
	}
}

static void run_second(struct ring *ring, const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);

	run_worker(0, ring, fd, count);
	pthread_join(workers[0].thread, NULL);
	report(&workers[0].log, 1);
	run_reads(ring, fd, buffers[0], count);
}

static void run_fork(struct ring *ring, const char *path, long count)
{
	int fd = open_file(path, O_RDONLY);
	pid_t child = fork();
	int status;

	if (child < 0)
		die("cannot fork");
	if (!child) {
		run_reads(ring, fd, buffers[0], count);
		return; /* and report */
	}
	if (waitpid(child, &status, 0) != child || status)
		errno = 0, die("the child failed");
	ring->handed = ring->tail = *ring->sq_tail; /* the child moved it on, in memory that both have */
	run_reads(ring, fd, buffers[0], count);
}

/* --- requests that wait */

static void run_multishot(struct ring *ring)
{
	static const int sizes[] = {5, 1, 23, 2, 17};
	struct io_uring_sqe *sqe;
	struct io_uring_cqe cqe;
	int ends[2];

	if (pipe(ends))
		die("cannot make a pipe");
	sqe = next(ring, IORING_OP_PROVIDE_BUFFERS, 16);
	sqe->addr = (uintptr_t)buffers[0];
	sqe->len = 64;
	sqe->buf_group = 1;
	note("provide_buffers", NONE, NONE, NONE, NO_RESULT);
	if (complete(ring))
		errno = 0, die("cannot provide buffers");
	sqe = next(ring, READ_MULTISHOT, ends[0]);
	sqe->flags = IOSQE_BUFFER_SELECT;
	sqe->off = -1;
	sqe->buf_group = 1;
	submit(ring);
	for (int i = 0; i < 6; i++) {
		if (i < 5 && write(ends[1], buffers[1], sizes[i]) != sizes[i])
			die("cannot write");
		if (i == 5)
			close(ends[1]);
		while (!reap(ring, &cqe))
			enter(ring, 0, 1);
		note("read_multishot", ends[0], NONE, NONE, 0);
		log_here.steps[log_here.count - 1].result = cqe.res;
		if (!(cqe.flags & IORING_CQE_F_MORE))
			break;
	}
}

static int open_fifo(const char *path)
{
	return open_file(path, O_RDWR); /* opened for both, it blocks nobody */
}

static void feed(int fifo)
{
	if (write(fifo, "12345", WAITING) != WAITING)
		die("cannot write");
}

static void run_closed(struct ring *ring, const char *path)
{
	int fifo = open_fifo(path), reader = open_fifo(path);

	add_read(ring, reader, buffers[0], WAITING, 0);
	submit(ring);
	close(reader);
	feed(fifo);
	await(ring, 1);
}

static void run_waits(struct ring *ring, const char *dir)
{
	char *path;
	int fifo, fd;

	if (asprintf(&path, "%s/fifo", dir) < 0 || mkfifo(path, 0644))
		die("cannot prepare %s", dir);
	fifo = open_fifo(path);
	if (asprintf(&path, "%s/f", dir) < 0)
		die("out of memory");
	fd = open_file(path, O_RDWR | O_CREAT);
	if (write(fd, buffers[0], SIZE) != SIZE)
		die("cannot write %s", path);
	for (int i = 0; i < 100; i++) {
		if (i % 50 && i != 25) {
			add_read(ring, fd, buffers[0], WAITING, i);
			complete(ring);
			continue;
		}
		add_read(ring, fifo, buffers[0], WAITING, 0);
		submit(ring);
		rest(WAIT_NS);
		feed(fifo);
		await(ring, 1);
	}
}

static void run_cancel(struct ring *ring, const char *path)
{
	int fifo = open_fifo(path);
	struct io_uring_sqe *sqe = add_read(ring, fifo, buffers[0], WAITING, 0);
	unsigned long long target = sqe->user_data;

	submit(ring);
	sqe = add(ring, IORING_OP_ASYNC_CANCEL, "async_cancel", -1, NONE, NONE);
	sqe->addr = target;
	submit(ring);
	await(ring, 2);
}

static void run_leave(struct ring *ring, const char *path)
{
	add_read(ring, open_fifo(path), buffers[0], WAITING, 0);
	submit(ring);
}

static void run_left(struct ring *ring, const char *path)
{
	pid_t child = fork();

	if (child < 0)
		die("cannot fork");
	if (!child) {
		run_leave(ring, path);
		return; /* and report */
	}
	if (waitpid(child, NULL, 0) != child)
		die("no child");
	rest(10 * WAIT_NS);
}

static void run_stay(struct ring *ring, const char *path)
{
	run_leave(ring, path);
	say("ready %d\n", getpid());
	pause();
}

static void add_mixed(struct ring *ring, const int *files, long number)
{
	long file = number * 7 % MIXED;
	struct io_uring_sqe *sqe = next(ring, IORING_OP_READ, files[file]);

	sqe->flags = IOSQE_ASYNC;
	sqe->user_data = 0;
	sqe->addr = (uintptr_t)buffers[number % UNDER_WAY];
	sqe->len = PAGE;
	sqe->off = file * PAGE;
}

static void run_mix(struct ring *ring, const char *dir)
{
	struct io_uring_cqe cqe;
	int files[MIXED];
	char path[4096];
	long number;

	for (int i = 0; i < MIXED; i++) {
		snprintf(path, sizeof(path), "%s/f%03d", dir, i);
		files[i] = open_file(path, O_RDONLY | O_DIRECT);
	}
	for (number = 0; number < UNDER_WAY; number++)
		add_mixed(ring, files, number);
	say("ready %d\n", getpid());
	for (;;) {
		submit(ring);
		enter(ring, 0, 1);
		while (reap(ring, &cqe))
			add_mixed(ring, files, number++);
	}
}

static void run_began(struct ring *ring, const char *path, const char *file)
{
	int fifo = open_fifo(path), fd = open_file(file, O_RDONLY);
	char byte;

	add_read(ring, fifo, buffers[0], WAITING, 0)->flags = IOSQE_IO_LINK;
	add_read(ring, fd, buffers[1], SIZE, 3 * SIZE);
	submit(ring);
	say("ready %d\n", getpid());
	if (read(STDIN_FILENO, &byte, 1) != 1)
		errno = 0, die("nobody said to go on");
	feed(fifo);
	await(ring, 2);
	run_reads(ring, fd, buffers[0], 7);
}

static bool run_on_file(struct ring *ring, const char *variant, const char *path, const char *more)
{
	static const struct {
		const char *name;
		void (*run)(struct ring *ring, const char *path);
	} variants[] = {
		{"fail", run_fail},	{"refused", run_refused}, {"short", run_short},	  {"links", run_links},
		{"meta", run_meta},	{"slots", run_slots},	  {"skip", run_skip},	  {"silent", run_silent},
		{"others", run_others}, {"unknown", run_unknown}, {"closed", run_closed}, {"waits", run_waits},
		{"cancel", run_cancel}, {"leave", run_leave},	  {"stay", run_stay},	  {"chain", run_chain},
		{"left", run_left},	{"mix", run_mix},
	};

	for (size_t i = 0; i < sizeof(variants) / sizeof(*variants); i++)
		if (!strcmp(variants[i].name, variant)) {
			variants[i].run(ring, path);
			return true;
		}
	if (!more)
		return false;
	if (!strcmp(variant, "splice"))
		run_splice(ring, path, more);
	else if (!strcmp(variant, "rings"))
		run_rings(path, more);
	else if (!strcmp(variant, "stale"))
		run_stale(path, more);
	else if (!strcmp(variant, "overflow"))
		run_overflow(path, number(more));
	else if (!strcmp(variant, "began"))
		run_began(ring, path, more);
	else if (!strcmp(variant, "second"))
		run_second(ring, path, number(more));
	else if (!strcmp(variant, "fork"))
		run_fork(ring, path, number(more));
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	struct ring ring;

	for (size_t i = 0; argc >= 5 && i < sizeof(kinds) / sizeof(*kinds); i++) {
		if (strcmp(kinds[i].name, argv[1]))
			continue;
		for (int option = 5; option < argc; option++)
			parse_option(argv[option]);
		run_transfers(&kinds[i], argv[2], number(argv[3]), number(argv[4]));
		report(&log_here, 1);
		return 0;
	}
	if (argc == 4 && !strcmp(argv[1], "threads")) {
		run_threads(argv[2], number(argv[3]));
		return 0;
	}
	if (argc < 2)
		usage("uring VARIANT …");
	make_ring(&ring, 0);
	if (argc == 2 && !strcmp(argv[1], "multishot"))
		run_multishot(&ring);
	else if (argc < 3 || !run_on_file(&ring, argv[1], argv[2], argc > 3 ? argv[3] : NULL))
		usage("uring VARIANT …: no such variant");
	report(&log_here, 1);
	return 0;
}
