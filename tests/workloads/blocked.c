// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * blocked VARIANT FIFO: reads that wait, because nobody writes to FIFO. Prints "ready PID" first.
 *   forever:      1 read of 5 bytes that ends when the process is killed
 *   interrupted:  3 reads of 5 bytes, each ended by SIGALRM after 20 ms, without SA_RESTART: the program sees EINTR
 *   restarted:    1 read of 5 bytes that SIGALRM interrupts once with SA_RESTART, so that the kernel starts it again;
 *                 the handler writes 5 bytes, which end it
 */
#include "work.h"
#include <signal.h>
#include <sys/time.h>

enum { SIZE = 5, ALARM_US = 20000 };

static int fd;
static bool writes;

static void on_alarm(int number)
{
	(void)number;
	if (writes && write(fd, "12345", SIZE) != SIZE)
		_exit(1);
}

static void read_interrupted(int flags)
{
	struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
	struct itimerval timer = {.it_value = {.tv_usec = ALARM_US}};
	char data[SIZE];

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	note("read", fd, NONE, SIZE, syscall(SYS_read, fd, data, (long)SIZE));
}

int main(int argc, char **argv)
{
	char data[SIZE];

	if (argc != 3)
		usage("blocked VARIANT FIFO");
	/* Opened for both, a FIFO blocks nobody before the read. */
	fd = open_file(argv[2], O_RDWR);
	say("ready %d\n", getpid());
	if (!strcmp(argv[1], "forever")) {
		syscall(SYS_read, fd, data, (long)SIZE);
	} else if (!strcmp(argv[1], "interrupted")) {
		for (int i = 0; i < 3; i++)
			read_interrupted(0);
	} else if (!strcmp(argv[1], "restarted")) {
		writes = true;
		read_interrupted(SA_RESTART);
	} else {
		usage("blocked VARIANT FIFO: no such variant");
	}
	report(&log_here, 1);
	return 0;
}
