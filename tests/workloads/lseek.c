// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * lseek FILE: makes FILE with 4096 bytes at 0 and at 1 MiB and a hole between, and moves about in it: 7 lseeks. 5 of
 * them succeed (SEEK_SET, CUR, END, DATA, HOLE) and are each followed by one 7-byte read, 2 fail (a negative position,
 * SEEK_DATA past the end). An lseek is noted with its argument as offset, whence as size and the position as result.
 */
#include "work.h"

enum { FAR = 1 << 20, SIZE = 7 };

static long seek(int fd, long offset, int whence)
{
	return note("lseek", fd, offset, whence, syscall(SYS_lseek, fd, offset, whence));
}

static void seek_read(int fd, long offset, int whence)
{
	char data[SIZE];
	long at = seek(fd, offset, whence);

	note("read", fd, at, SIZE, syscall(SYS_read, fd, data, (long)SIZE));
}

int main(int argc, char **argv)
{
	static char block[PAGE];
	int fd;

	if (argc != 2)
		usage("lseek FILE");
	fd = open_file(argv[1], O_RDWR | O_CREAT | O_TRUNC);
	if (pwrite(fd, block, PAGE, 0) != PAGE || pwrite(fd, block, PAGE, FAR) != PAGE || fsync(fd))
		die("cannot write %s", argv[1]);
	seek_read(fd, 101, SEEK_SET);
	seek_read(fd, 50, SEEK_CUR);
	seek_read(fd, -10, SEEK_END);
	seek_read(fd, 2 * PAGE, SEEK_DATA);
	seek_read(fd, 0, SEEK_HOLE);
	seek(fd, -1, SEEK_SET);
	seek(fd, 2L * FAR, SEEK_DATA);
	report(&log_here, 1);
	return 0;
}
