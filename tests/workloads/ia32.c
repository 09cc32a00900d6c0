// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * ia32 FILE: calls through the 32-bit entry (int 0x80) of an x86-64 kernel, where numbers mean others: 3 is read, not
 * close; 5 is open, not fstat; 6 is close, not lstat. Opens FILE, reads 3 bytes 7 times, closes it; then reads 3 bytes
 * of it 5 times by the 64-bit read.
 */
#include "work.h"
#include <sys/mman.h>

#ifdef __x86_64__
static long call32(long nr, unsigned long a, unsigned long b, unsigned long c)
{
	long ret;

	asm volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return (int)ret;
}

int main(int argc, char **argv)
{
	char *low = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	char data[3];
	long fd;

	if (argc != 2 || low == MAP_FAILED || strlen(argv[1]) >= PAGE)
		usage("ia32 FILE");
	strcpy(low, argv[1]);
	fd = call32(5, (unsigned long)low, O_RDONLY, 0);
	if (fd < 0) {
		say("none\n");
		return 0;
	}
	for (int i = 0; i < 7; i++)
		if (call32(3, fd, (unsigned long)low, 3) != 3)
			die("read by int 0x80");
	if (call32(6, fd, 0, 0))
		die("close by int 0x80");
	fd = open_file(argv[1], O_RDONLY);
	for (int i = 0; i < 5; i++)
		if (read(fd, data, 3) != 3)
			die("read");
	return 0;
}
#else
int main(void)
{
	say("none\n");
	return 0;
}
#endif
