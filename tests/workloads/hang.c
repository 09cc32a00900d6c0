// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * hang VARIANT …: calls that may not return for long. Prints "ready PID", then makes one call (threads: one each), and
 * prints it once it has returned.
 *   read FILE OFFSET:    read(2) of 4096 bytes; a FIFO has no position, and is opened so that this blocks nobody
 *   open FILE:           openat(2) for reading
 *   stat FOLDER NAME:    newfstatat(2) of NAME, from FOLDER as the working directory
 *   statat FOLDER NAME:  the same with a descriptor of FOLDER, from elsewhere
 *   close FILE:          close(2)
 *   write FILE OFFSET:   write(2) of 4096 bytes
 *   load FILE OFFSET:    a byte read through a mapping of the whole file
 *   store FILE OFFSET:   a byte stored through such a mapping, shared
 *   threads FILE…:       pread64(2) of 4096 bytes, thread k (from 1) from page k of the kth file; the first thread is
 *                        not one of them
 *   uring FILE OFFSET:   an IORING_OP_READ of 4096 bytes
 *   aio FILE OFFSET:     an IOCB_CMD_PREAD of 4096 bytes, with O_DIRECT
 *   path FILE:           one thread's openat(2) of a path that lies in a mapping of FILE, which is no step; meanwhile the
 *                        first maps and unmaps a page every 10 ms until stdin ends. The step: as the size how often, as
 *                        the result the longest time in nanoseconds from one such round to the next
 *   busy COUNT:          COUNT threads read a byte from a pipe each, again and again, and wait about 7 ms; until stdin
 *                        ends. A step's offset is when the read began, its size how long it took at most (ns, boot time)
 *   idle FILE:           no such call at all: threads that sleep in nanosleep, futex and poll and in wait4 for a child
 *                        which does so in pause, and one that loops; each has read FILE before. Until it is killed
 */
#include "work.h"
#include <linux/aio_abi.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { THREADS = 16, IDLE = 5, ROUND_NS = 10000000, MAX_BUSY = 64, FEED_NS = 7000000, PAUSE_NS = 2000000 };

static char data[THREADS][PAGE] __attribute__((aligned(PAGE)));
static struct log logs[THREADS];
static char **paths;

static void say_ready(void)
{
	say("ready %d\n", getpid());
}

/* Opened for both, a FIFO blocks nobody before the read. */
static int open_blockable(const char *path)
{
	struct stat file;

	if (stat(path, &file))
		die("cannot stat %s", path);
	return open_file(path, S_ISFIFO(file.st_mode) ? O_RDWR : O_RDONLY);
}

static int open_at(const char *path, int flags, long offset)
{
	int fd = open_file(path, flags);

	if (offset && lseek(fd, offset, SEEK_SET) != offset)
		die("cannot seek");
	return fd;
}

static void run_read(const char *path, long offset)
{
	int fd = open_blockable(path);

	if (offset && lseek(fd, offset, SEEK_SET) != offset)
		die("cannot seek");
	say_ready();
	note("read", fd, offset, PAGE, syscall(SYS_read, fd, data[0], (long)PAGE));
}

static void run_write(const char *path, long offset)
{
	int fd = open_at(path, O_WRONLY, offset);

	say_ready();
	note("write", fd, offset, PAGE, syscall(SYS_write, fd, data[0], (long)PAGE));
}

static void run_open(const char *path)
{
	say_ready();
	note("openat", NONE, NONE, NONE, syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0));
}

static void run_stat(const char *folder, const char *name, bool is_cwd)
{
	struct stat file;
	int fd = is_cwd ? AT_FDCWD : open_file(folder, O_RDONLY | O_DIRECTORY);

	if (is_cwd && chdir(folder))
		die("cannot change to %s", folder);
	say_ready();
	note("newfstatat", is_cwd ? NONE : fd, NONE, NONE, syscall(SYS_newfstatat, fd, name, &file, 0));
}

static void run_close(const char *path)
{
	int fd = open_file(path, O_RDONLY);

	say_ready();
	note("close", fd, NONE, NONE, syscall(SYS_close, fd));
}

static void run_touch(const char *path, long offset, bool is_store)
{
	int fd = open_file(path, is_store ? O_RDWR : O_RDONLY);
	volatile char *base, byte;
	struct stat file;

	if (fstat(fd, &file))
		die("cannot stat %s", path);
	base = mmap(NULL, file.st_size, is_store ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED || madvise((void *)base, file.st_size, MADV_RANDOM))
		die("cannot map");
	say_ready();
	if (is_store)
		base[offset] = 1;
	else
		byte = base[offset], (void)byte;
	note("fault", NONE, offset, NONE, 0);
}

static void *read_page(void *arg)
{
	long number = (long)arg;
	int fd = open_file(paths[number - 1], O_RDONLY);

	note("pread64", fd, number * PAGE, PAGE, syscall(SYS_pread64, fd, data[number - 1], (long)PAGE, number * PAGE));
	logs[number - 1] = log_here;
	return NULL;
}

static pthread_t start(void *(*body)(void *), void *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, body, arg);
	if (errno)
		die("cannot create a thread");
	return thread;
}

static void run_threads(int count)
{
	pthread_t threads[THREADS];

	if (count > THREADS)
		errno = 0, die("too many threads");
	say_ready();
	for (long i = 0; i < count; i++)
		threads[i] = start(read_page, (void *)(i + 1));
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	report(logs, count);
}

static long long now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void rest(long ns)
{
	nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static bool is_to_end(void)
{
	return poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, 0);
}

static void *open_path(void *arg)
{
	syscall(SYS_openat, AT_FDCWD, arg, O_RDONLY, 0);
	return NULL;
}

static void run_path(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	char *base = mmap(NULL, 16 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	long long begin, last, longest = 0;
	long rounds = 0;

	if (base == MAP_FAILED)
		die("cannot map %s", path);
	say_ready();
	start(open_path, base + 2 * PAGE);
	for (last = now(CLOCK_MONOTONIC); !is_to_end(); rounds++, rest(ROUND_NS)) {
		volatile char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (page == MAP_FAILED)
			die("cannot map");
		*page = 1;
		munmap((void *)page, PAGE);
		begin = last;
		last = now(CLOCK_MONOTONIC);
		if (last - begin > longest)
			longest = last - begin;
	}
	note("rounds", NONE, NONE, rounds, longest);
}

static struct busy {
	pthread_t thread;
	int ends[2];
	struct log log;
} busy[MAX_BUSY];
static atomic_bool is_over;

static void *read_pipe(void *arg)
{
	struct busy *own = arg;
	long long begin;
	char byte;

	while (!atomic_load(&is_over)) {
		begin = now(CLOCK_BOOTTIME);
		if (syscall(SYS_read, own->ends[0], &byte, 1L) != 1)
			die("cannot read");
		note("read", own->ends[0], begin, now(CLOCK_BOOTTIME) - begin, 1);
		rest(PAUSE_NS);
	}
	own->log = log_here;
	return NULL;
}

static void run_busy(long count)
{
	struct log all[MAX_BUSY];

	if (count < 1 || count > MAX_BUSY)
		usage("hang busy: from 1 to 64");
	for (long i = 0; i < count; i++) {
		if (pipe(busy[i].ends))
			die("cannot make a pipe");
		busy[i].thread = start(read_pipe, &busy[i]);
	}
	say_ready();
	while (!is_to_end())
		for (long i = 0; i < count; i++) {
			if (!(i % 8))
				rest(FEED_NS / (count / 8 + 1));
			if (write(busy[i].ends[1], "x", 1) != 1)
				die("cannot write");
		}
	atomic_store(&is_over, true);
	for (long i = 0; i < count; i++) {
		if (write(busy[i].ends[1], "x", 1) != 1)
			die("cannot write");
		pthread_join(busy[i].thread, NULL);
		all[i] = busy[i].log;
	}
	report(all, count);
}

static void *map_ring(int ring, size_t size, off_t offset)
{
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);

	if (base == MAP_FAILED)
		die("cannot map the ring");
	return base;
}

static void run_uring(const char *path, long offset)
{
	struct io_uring_params params = {0};
	int fd = open_blockable(path), ring = syscall(SYS_io_uring_setup, 1, &params);
	const struct io_uring_cqe *done;
	struct io_uring_sqe *asked;
	char *sq, *cq;

	if (ring < 0)
		die("no io_uring");
	sq = map_ring(ring, params.sq_off.array + sizeof(unsigned), IORING_OFF_SQ_RING);
	cq = map_ring(ring, params.cq_off.cqes + params.cq_entries * sizeof(*done), IORING_OFF_CQ_RING);
	asked = map_ring(ring, sizeof(*asked), IORING_OFF_SQES);
	*asked = (struct io_uring_sqe){
		.opcode = IORING_OP_READ,
		.fd = fd,
		.off = offset,
		.addr = (uintptr_t)data[0],
		.len = PAGE,
	};
	*(unsigned *)(sq + params.sq_off.array) = 0;
	atomic_store((atomic_uint *)(sq + params.sq_off.tail), 1);
	say_ready();
	if (syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) != 1)
		die("cannot submit");
	while (!atomic_load((atomic_uint *)(cq + params.cq_off.tail)))
		syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	done = (const struct io_uring_cqe *)(cq + params.cq_off.cqes);
	errno = done->res < 0 ? -done->res : 0;
	note("read", fd, offset, PAGE, done->res < 0 ? -1 : done->res);
}

static void run_aio(const char *path, long offset)
{
	int fd = open_file(path, O_RDONLY | O_DIRECT);
	struct iocb asked = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)data[0],
		.aio_nbytes = PAGE,
		.aio_offset = offset,
	};
	struct iocb *list = &asked;
	struct io_event done;
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, 1, &context))
		die("no aio");
	say_ready();
	if (syscall(SYS_io_submit, context, 1L, &list) != 1)
		die("cannot submit");
	while (syscall(SYS_io_getevents, context, 1L, 1L, &done, NULL) != 1)
		;
	errno = done.res < 0 ? -done.res : 0;
	note("pread", fd, offset, PAGE, done.res < 0 ? -1 : done.res);
}

static void read_once(void)
{
	int fd = open_file(paths[0], O_RDONLY);

	syscall(SYS_read, fd, data[0], (long)PAGE);
}

static void *idle(void *arg)
{
	static uint32_t word;
	struct pollfd nothing = {.fd = -1};

	read_once();
	switch ((long)arg) {
	case 0:
		for (;;)
			nanosleep(&(struct timespec){.tv_sec = 60}, NULL);
	case 1:
		for (;;)
			syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0);
	case 2:
		for (;;)
			poll(&nothing, 1, 60000);
	case 3: {
		pid_t child = fork();

		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			read_once();
			for (;;)
				pause();
		}
		syscall(SYS_wait4, child, NULL, 0, NULL);
		return NULL;
	}
	default:
		for (volatile unsigned long turns = 0;; turns++)
			;
	}
}

static void run_idle(void)
{
	for (long i = 0; i < IDLE; i++)
		start(idle, (void *)i);
	read_once();
	say_ready();
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	const char *variant = argc > 2 ? argv[1] : "";

	paths = argv + 2;
	if (!strcmp(variant, "threads"))
		run_threads(argc - 2);
	else if (!strcmp(variant, "open"))
		run_open(argv[2]);
	else if (!strcmp(variant, "close"))
		run_close(argv[2]);
	else if (!strcmp(variant, "path"))
		run_path(argv[2]);
	else if (!strcmp(variant, "busy"))
		run_busy(number(argv[2]));
	else if (!strcmp(variant, "idle"))
		run_idle();
	else if (argc != 4)
		usage("hang VARIANT …: see the source");
	else if (!strcmp(variant, "stat") || !strcmp(variant, "statat"))
		run_stat(argv[2], argv[3], !strcmp(variant, "stat"));
	else if (!strcmp(variant, "read"))
		run_read(argv[2], number(argv[3]));
	else if (!strcmp(variant, "write"))
		run_write(argv[2], number(argv[3]));
	else if (!strcmp(variant, "load") || !strcmp(variant, "store"))
		run_touch(argv[2], number(argv[3]), !strcmp(variant, "store"));
	else if (!strcmp(variant, "uring"))
		run_uring(argv[2], number(argv[3]));
	else if (!strcmp(variant, "aio"))
		run_aio(argv[2], number(argv[3]));
	else
		errno = 0, die("no such variant: %s", variant);
	report(&log_here, 1);
	return 0;
}
