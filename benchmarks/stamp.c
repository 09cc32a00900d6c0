// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * stamp [COMMAND...]: says when it began, on CLOCK_MONOTONIC, runs the command, and says how much memory its parent has
 * used at most so far, in KiB:
 *
 *     {"began_ns": 123456789012345, "parent_peak_kib": 34567}
 */
#include "../tests/workloads/work.h"
#include <sys/wait.h>
#include <time.h>

static long parent_peak_kib(void)
{
	char path[64], line[256];
	long peak = 0;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", getppid());
	status = fopen(path, "r");
	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmHWM: %ld", &peak) == 1)
			break;
	if (status)
		fclose(status);
	return peak;
}

int main(int argc, char **argv)
{
	struct timespec now;
	pid_t child;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (argc > 1) {
		child = fork();
		if (!child) {
			dup2(open_file("/dev/null", O_WRONLY), STDOUT_FILENO);
			execv(argv[1], argv + 1);
			die("cannot run %s", argv[1]);
		}
		waitpid(child, NULL, 0);
	}
	say("{\"began_ns\": %lld, \"parent_peak_kib\": %ld}\n", now.tv_sec * 1000000000LL + now.tv_nsec,
	    parent_peak_kib());
	return 0;
}
