// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * loops KIND COUNT [FILE...]: COUNT times one cheap thing in a tight loop, and what it cost in CPU and in wall time:
 *
 *     {"loop": "pread", "count": 100000, "cpu_ns": 44612345, "wall_ns": 44700123, "faults": 0}
 *
 * getppid   the cheapest system call
 * pread     1 byte of FILE at 0, 1, ... 4095, 0, ...
 * ring      the same through io_uring, one request at a time
 * rings     the same, 32 requests at a time
 * scatter   4 KiB of each FILE in turn, at pages picked by a fixed pseudo-random sequence
 * anon      a write to each of COUNT fresh pages of anonymous memory, no huge ones
 * mapped    a read of each page of a shared mapping of FILE (MADV_RANDOM), mapped anew until COUNT pages are read
 *
 * Only the loop is timed, not what sets it up.
 */
#include "../tests/workloads/work.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum { ANON_PAGES = 16384, MAX_FILES = 64, BATCH = 32 };

static struct {
	long long cpu_ns, wall_ns, faults;
} total;

static long long now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* Adds a span to the total: called with -1 where it begins, with 1 where it ends. CPU time is innermost. */
static void clock_span(int sign)
{
	if (sign > 0)
		total.cpu_ns += now_ns(CLOCK_THREAD_CPUTIME_ID);
	total.wall_ns += sign * now_ns(CLOCK_MONOTONIC);
	total.faults += sign * faults();
	if (sign < 0)
		total.cpu_ns -= now_ns(CLOCK_THREAD_CPUTIME_ID);
}

static void loop_getppid(long count)
{
	clock_span(-1);
	for (long i = 0; i < count; i++)
		syscall(SYS_getppid);
	clock_span(1);
}

static void loop_pread(long count, const char *path)
{
	int fd = open_file(path, O_RDONLY);
	char data;

	clock_span(-1);
	for (long i = 0; i < count; i++)
		if (syscall(SYS_pread64, fd, &data, 1L, i & (PAGE - 1)) != 1)
			die("pread64 did not read one byte");
	clock_span(1);
}

static void *map_ring(int fd, size_t size, long long offset)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);

	if (memory == MAP_FAILED)
		die("cannot map the ring");
	return memory;
}

static void loop_ring(long count, long batch, const char *path)
{
	struct io_uring_params params = {0};
	int ring = syscall(SYS_io_uring_setup, batch, &params), fd = open_file(path, O_RDONLY);
	char *sq, *cq;
	struct io_uring_sqe *sqes;
	unsigned int *sq_tail, *cq_head, *array, sq_mask;
	static char data[BATCH];

	if (ring < 0)
		die("cannot make a ring");
	sq = map_ring(ring, params.sq_off.array + params.sq_entries * sizeof(*array), IORING_OFF_SQ_RING);
	cq = map_ring(ring, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
	sqes = map_ring(ring, params.sq_entries * sizeof(*sqes), IORING_OFF_SQES);
	array = (unsigned int *)(sq + params.sq_off.array);
	sq_tail = (unsigned int *)(sq + params.sq_off.tail);
	sq_mask = *(unsigned int *)(sq + params.sq_off.ring_mask);
	cq_head = (unsigned int *)(cq + params.cq_off.head);

	clock_span(-1);
	for (long done = 0; done < count; done += batch) {
		unsigned int tail = *sq_tail, head = *cq_head;

		for (int i = 0; i < batch; i++, tail++) {
			sqes[tail & sq_mask] = (struct io_uring_sqe){
				.opcode = IORING_OP_READ,
				.fd = fd,
				.off = (done + i) & (PAGE - 1),
				.addr = (uintptr_t)&data[i],
				.len = 1,
			};
			array[tail & sq_mask] = tail & sq_mask;
		}
		__atomic_store_n(sq_tail, tail, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, ring, batch, batch, IORING_ENTER_GETEVENTS, NULL, 0) != batch)
			die("the ring did not take the requests");
		__atomic_store_n(cq_head, head + batch, __ATOMIC_RELEASE);
	}
	clock_span(1);
}

static void loop_scatter(long count, char **paths, int files)
{
	uint64_t state = 1;
	int fds[MAX_FILES];
	long pages[MAX_FILES];
	char data[PAGE];

	for (int i = 0; i < files; i++) {
		struct stat about;

		fds[i] = open_file(paths[i], O_RDONLY);
		if (fstat(fds[i], &about) || about.st_size < PAGE)
			die("%s holds no page", paths[i]);
		pages[i] = about.st_size / PAGE;
	}
	clock_span(-1);
	for (long i = 0; i < count; i++) {
		int file = i % files;

		state = state * 6364136223846793005 + 1442695040888963407; /* Knuth's MMIX generator */
		if (syscall(SYS_pread64, fds[file], data, PAGE, (long)((state >> 33) % pages[file]) * PAGE) != PAGE)
			die("pread64 did not read a page");
	}
	clock_span(1);
}

static void loop_anon(long count)
{
	for (long left = count; left > 0; left -= ANON_PAGES) {
		size_t size = (left < ANON_PAGES ? left : ANON_PAGES) * PAGE;
		volatile char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED || madvise((void *)memory, size, MADV_NOHUGEPAGE))
			die("cannot map memory");
		clock_span(-1);
		for (size_t at = 0; at < size; at += PAGE)
			memory[at] = 1;
		clock_span(1);
		munmap((void *)memory, size);
	}
}

static void loop_mapped(long count, const char *path)
{
	int fd = open_file(path, O_RDONLY);
	struct stat about;

	if (fstat(fd, &about) || about.st_size < PAGE)
		die("%s holds no page", path);
	for (long left = count; left > 0; left -= about.st_size / PAGE) {
		volatile char *memory = mmap(NULL, about.st_size, PROT_READ, MAP_SHARED, fd, 0);

		if (memory == MAP_FAILED || madvise((void *)memory, about.st_size, MADV_RANDOM))
			die("cannot map %s", path);
		clock_span(-1);
		for (off_t at = 0; at < about.st_size; at += PAGE)
			(void)memory[at];
		clock_span(1);
		munmap((void *)memory, about.st_size);
	}
}

int main(int argc, char **argv)
{
	const char *kind = argc > 2 ? argv[1] : "";
	int files = argc - 3;
	long count;

	if (argc < 3 || files > MAX_FILES)
		usage("loops KIND COUNT [FILE...]");
	count = number(argv[2]);
	if (!strcmp(kind, "getppid") && !files)
		loop_getppid(count);
	else if (!strcmp(kind, "anon") && !files)
		loop_anon(count);
	else if (!strcmp(kind, "pread") && files == 1)
		loop_pread(count, argv[3]);
	else if (!strcmp(kind, "ring") && files == 1)
		loop_ring(count, 1, argv[3]);
	else if (!strcmp(kind, "rings") && files == 1 && count % BATCH == 0)
		loop_ring(count, BATCH, argv[3]);
	else if (!strcmp(kind, "mapped") && files == 1)
		loop_mapped(count, argv[3]);
	else if (!strcmp(kind, "scatter") && files)
		loop_scatter(count, argv + 3, files);
	else
		usage("loops {getppid,anon} COUNT, loops {pread,ring,rings,mapped} COUNT FILE, loops scatter COUNT "
		      "FILE...");
	say("{\"loop\": \"%s\", \"count\": %ld, \"cpu_ns\": %lld, \"wall_ns\": %lld, \"faults\": %lld}\n", kind, count,
	    total.cpu_ns, total.wall_ns, total.faults);
	return 0;
}
