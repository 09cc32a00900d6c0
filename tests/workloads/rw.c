// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * rw VARIANT FILE: one kind of read or write call on one file. A variant named after a call makes 23 calls of 4099
 * bytes: read and write in order, those with an offset over slots 0, 7, 14, … (modulo 23) of 4099 bytes, vectors in
 * three pieces of 1000, 3000 and 99 bytes; preadv2-here and pwritev2-here pass the offset -1. "short" makes 19 reads
 * of 4099 bytes whatever the file's length. "fail" makes 7 calls that fail: read and write on a closed descriptor
 * (987), read on a write-only and write on a read-only one, pread64 at -5, read to a bad address, pread64 of a
 * directory.
 */
#include "work.h"
#include <sys/uio.h>

enum { CALLS = 23, SHORT_CALLS = 19, SIZE = 4099, CLOSED_FD = 987 };

static const struct variant {
	const char *name;
	const char *op;
	int nr;
	bool is_write;
	bool has_offset;
	bool is_vector;
} variants[] = {
	{"read", "read", SYS_read, false, false, false},
	{"write", "write", SYS_write, true, false, false},
	{"readv", "readv", SYS_readv, false, false, true},
	{"writev", "writev", SYS_writev, true, false, true},
	{"pread64", "pread64", SYS_pread64, false, true, false},
	{"pwrite64", "pwrite64", SYS_pwrite64, true, true, false},
	{"preadv", "preadv", SYS_preadv, false, true, true},
	{"pwritev", "pwritev", SYS_pwritev, true, true, true},
	{"preadv2", "preadv2", SYS_preadv2, false, true, true},
	{"pwritev2", "pwritev2", SYS_pwritev2, true, true, true},
	{"preadv2-here", "preadv2", SYS_preadv2, false, false, true},
	{"pwritev2-here", "pwritev2", SYS_pwritev2, true, false, true},
};

static char data[SIZE];

static void run(const struct variant *variant, const char *path)
{
	int fd = open_file(path, variant->is_write ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY);
	struct iovec pieces[] = {{data, 1000}, {data + 1000, 3000}, {data + 4000, 99}};

	for (int i = 0; i < CALLS; i++) {
		long long offset = variant->has_offset ? (i * 7 % CALLS) * (long long)SIZE : NONE;
		long result;

		/* Fifth: the offset's upper half, for 32 bits. Sixth: flags of preadv2 and pwritev2. */
		if (variant->is_vector)
			result = syscall(variant->nr, fd, pieces, 3L, offset, 0L, 0L);
		else
			result = syscall(variant->nr, fd, data, (long)SIZE, offset);
		note(variant->op, fd, variant->has_offset ? offset : (long long)i * SIZE, SIZE, result);
	}
}

static void run_short(const char *path)
{
	int fd = open_file(path, O_RDONLY);
	long long offset = 0;

	for (int i = 0; i < SHORT_CALLS; i++)
		offset += note("read", fd, offset, SIZE, syscall(SYS_read, fd, data, (long)SIZE));
}

static void run_fail(const char *path)
{
	int read_only = open_file(path, O_RDONLY);
	int write_only = open_file(path, O_WRONLY);
	int directory = open_file("/", O_RDONLY | O_DIRECTORY);

	note("read", CLOSED_FD, NONE, SIZE, syscall(SYS_read, CLOSED_FD, data, (long)SIZE));
	note("write", CLOSED_FD, NONE, SIZE, syscall(SYS_write, CLOSED_FD, data, (long)SIZE));
	note("read", write_only, NONE, SIZE, syscall(SYS_read, write_only, data, (long)SIZE));
	note("write", read_only, NONE, SIZE, syscall(SYS_write, read_only, data, (long)SIZE));
	note("pread64", read_only, NONE, SIZE, syscall(SYS_pread64, read_only, data, (long)SIZE, -5L));
	note("read", read_only, NONE, SIZE, syscall(SYS_read, read_only, 8L, (long)SIZE));
	note("pread64", directory, NONE, SIZE, syscall(SYS_pread64, directory, data, (long)SIZE, 0L));
}

int main(int argc, char **argv)
{
	if (argc != 3)
		usage("rw VARIANT FILE");
	if (!strcmp(argv[1], "short")) {
		run_short(argv[2]);
	} else if (!strcmp(argv[1], "fail")) {
		run_fail(argv[2]);
	} else {
		const struct variant *variant = variants;

		while (strcmp(variant->name, argv[1]))
			if (++variant == variants + sizeof(variants) / sizeof(*variants))
				usage("rw VARIANT FILE: no such variant");
		run(variant, argv[2]);
	}
	report(&log_here, 1);
	return 0;
}
