// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * secret DIR: moves the 64 bytes that come on stdin by every road there is, in files, pipes and sockets of DIR. No name
 * holds them. DIR/listed is a folder that is there; it is listed, and what is in it is not touched.
 *
 * A road that this kernel or file system lacks is left out; each that was taken is a step.
 */
#include "work.h"
#include <dirent.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { SIZE = 64, ENTRIES = 4 };

static char secret[SIZE], room[PAGE] __attribute__((aligned(PAGE)));

static void step(const char *op, long result)
{
	note(op, NONE, NONE, NONE, result);
}

static void check(const void *data, const char *op)
{
	if (memcmp(data, secret, SIZE))
		errno = 0, die("%s: not what was written", op);
	memset(room, 0, sizeof(room));
}

static void calls(int fd)
{
	struct iovec out[2] = {{secret, 24}, {secret + 24, SIZE - 24}}, in[2] = {{room, 24}, {room + 24, SIZE - 24}};

	step("write", write(fd, secret, SIZE));
	step("writev", writev(fd, out, 2));
	step("pwrite64", pwrite(fd, secret, SIZE, 0));
	step("pwritev", pwritev(fd, out, 2, 100));
	step("pwritev2", pwritev2(fd, out, 2, 200, 0));
	lseek(fd, 0, SEEK_SET);
	step("read", read(fd, room, SIZE));
	check(room, "read");
	step("readv", readv(fd, in, 2));
	step("pread64", pread(fd, room, SIZE, 0));
	check(room, "pread64");
	step("preadv", preadv(fd, in, 2, 100));
	check(room, "preadv");
	step("preadv2", preadv2(fd, in, 2, 200, 0));
	check(room, "preadv2");
	/* Failures, too, are given the buffer. */
	step("write", write(-1, secret, SIZE));
	step("pread64", pread(fd, secret, SIZE, -5));
}

static void mappings(int fd)
{
	char *map;

	if (ftruncate(fd, 4 * PAGE))
		die("ftruncate");
	map = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap");
	for (int page = 0; page < 4; page++)
		memcpy(map + page * PAGE + 128, secret, SIZE);
	step("msync", msync(map, 4 * PAGE, MS_SYNC));
	step("madvise", madvise(map, 4 * PAGE, MADV_DONTNEED));
	step("fadvise64", posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
	memcpy(room, map + PAGE + 128, SIZE); /* a fault that reads */
	check(room, "mmap");
	step("write", pwrite(fd, map + 128, SIZE, 512)); /* from the mapping itself */
	munmap(map, 4 * PAGE);
}

static void copies(int fd, int other)
{
	loff_t from = 0, to = 4096;
	off_t at = 0;
	int ends[2];

	if (pipe(ends))
		die("pipe");
	step("sendfile64", sendfile(other, fd, &at, SIZE));
	step("copy_file_range", copy_file_range(fd, &from, other, &to, SIZE, 0));
	from = 0;
	step("splice", splice(fd, &from, ends[1], NULL, SIZE, 0));
	to = 8192;
	step("splice", splice(ends[0], NULL, other, &to, SIZE, 0));
	step("write", write(ends[1], secret, SIZE));
	step("read", read(ends[0], room, SIZE));
	check(room, "pipe");
	step("vmsplice", vmsplice(ends[1], &(struct iovec){secret, SIZE}, 1, 0));
	step("read", read(ends[0], room, SIZE));
	close(ends[0]);
	close(ends[1]);
}

static void sockets(void)
{
	int ends[2], memory;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends))
		die("socketpair");
	step("write", write(ends[0], secret, SIZE));
	step("read", read(ends[1], room, SIZE));
	check(room, "socket");
	step("sendto", send(ends[0], secret, SIZE, 0));
	step("recvfrom", recv(ends[1], room, SIZE, 0));
	memory = memfd_create("plain", 0);
	step("write", write(memory, secret, SIZE));
	step("pread64", pread(memory, room, SIZE, 0));
	check(room, "memfd");
}

static void aio(int fd)
{
	struct iovec vector = {room, SIZE};
	struct iocb write_it = {
		.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uintptr_t)secret, .aio_nbytes = SIZE};
	struct iocb read_it = {
		.aio_lio_opcode = IOCB_CMD_PREADV, .aio_fildes = fd, .aio_buf = (uintptr_t)&vector, .aio_nbytes = 1};
	struct iocb *iocbs[] = {&write_it, &read_it};
	aio_context_t context = 0;
	struct io_event event;

	if (syscall(SYS_io_setup, 8, &context)) {
		errno = 0;
		return;
	}
	for (int i = 0; i < 2; i++) {
		if (syscall(SYS_io_submit, context, 1, &iocbs[i]) != 1 ||
		    syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
			die("aio");
		step(i ? "preadv" : "pwrite", event.res);
	}
	check(room, "aio");
}

static void uring(int fd)
{
	struct iovec out = {secret, SIZE}, in = {room, SIZE}, fixed = {room, PAGE};
	struct io_uring_sqe requests[] = {
		{.opcode = IORING_OP_WRITE, .fd = fd, .addr = (uintptr_t)secret, .len = SIZE},
		{.opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)room, .len = SIZE},
		{.opcode = IORING_OP_WRITEV, .fd = fd, .addr = (uintptr_t)&out, .len = 1, .off = 100},
		{.opcode = IORING_OP_READV, .fd = fd, .addr = (uintptr_t)&in, .len = 1, .off = 100},
		{.opcode = IORING_OP_READ_FIXED, .fd = fd, .addr = (uintptr_t)room, .len = SIZE},
		{.opcode = IORING_OP_WRITE, .fd = -1, .addr = (uintptr_t)secret, .len = SIZE},
	};
	struct io_uring_params params = {};
	int ring = syscall(SYS_io_uring_setup, ENTRIES, &params);
	struct io_uring_sqe *queue;
	unsigned int *array, *tail;
	char *submitted, *completed;

	if (ring < 0) {
		errno = 0;
		return;
	}
	submitted = mmap(NULL, params.sq_off.array + ENTRIES * sizeof(*array), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
			 IORING_OFF_SQ_RING);
	completed = mmap(NULL, params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe),
			 PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	queue = mmap(NULL, ENTRIES * sizeof(*queue), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	if (submitted == MAP_FAILED || completed == MAP_FAILED || queue == MAP_FAILED ||
	    syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &fixed, 1))
		die("io_uring");
	array = (unsigned int *)(submitted + params.sq_off.array);
	tail = (unsigned int *)(submitted + params.sq_off.tail);
	for (unsigned int i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		struct io_uring_cqe *cqes = (struct io_uring_cqe *)(completed + params.cq_off.cqes);
		unsigned int *head = (unsigned int *)(completed + params.cq_off.head);

		queue[0] = requests[i];
		array[*tail % ENTRIES] = 0;
		__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
		if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
			die("io_uring_enter");
		step("io_uring", cqes[*head % params.cq_entries].res);
		__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	}
	check(room, "io_uring");
}

/* What getdents64 returns is a buffer, too. */
static void list(const char *path)
{
	int fd = open_file(path, O_RDONLY | O_DIRECTORY);

	step("getdents64", syscall(SYS_getdents64, fd, room, sizeof(room)));
	close(fd);
}

int main(int argc, char **argv)
{
	struct stat found;
	int fd, other;

	if (argc != 2)
		usage("secret DIR");
	if (read(STDIN_FILENO, secret, SIZE) != SIZE)
		die("no secret on stdin");
	if (chdir(argv[1]))
		die("cannot enter %s", argv[1]);
	fd = open_file("one", O_RDWR | O_CREAT);
	other = open_file("other", O_RDWR | O_CREAT);
	calls(fd);
	aio(fd);
	uring(fd);
	mappings(fd);
	pwrite(fd, secret, SIZE, 0);
	copies(fd, other);
	sockets();
	list("listed");
	/* Memory that holds the secret when a call writes there. */
	memcpy(&found, secret, SIZE);
	step("newfstat", syscall(SYS_fstat, fd, &found));
	report(&log_here, 1);
	return 0;
}
