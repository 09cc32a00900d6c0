/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What the workloads share: a log of what was done, printed as JSON lines once everything has been done, so that
 * printing disturbs nothing. A line is
 *
 *     {"op": "pread64", "pid": 7, "tid": 8, "fd": 3, "offset": 0, "size": 4099, "result": 4099}
 *
 * with a result of -errno for a call that failed and null for what does not apply. Each thread has its own log; a
 * process writes its lines with one write(2), so that processes sharing an output don't mix.
 */
#ifndef WORK_H
#define WORK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define NONE (-1LL) /* printed as null */
#define PAGE 4096

struct step {
	const char *op;
	const char *path; /* plain ASCII; NULL is left out */
	int tid;
	long long fd;
	long long offset;
	long long size;
	long long result;
};

struct log {
	struct step *steps;
	size_t count;
	size_t room;
};

static __thread struct log log_here;

static inline void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
	int code = errno;
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	if (code)
		fprintf(stderr, ": %s", strerror(code));
	fputc('\n', stderr);
	exit(1);
}

static inline int thread_id(void)
{
	return syscall(SYS_gettid);
}

/* Result of a call as the kernel gave it: syscall(2)'s -1 becomes -errno. */
static inline long outcome(long result)
{
	return result == -1 ? -errno : result;
}

/* Notes one operation and gives its result as the kernel did. `result` is what syscall(2) returned. */
static inline long note_path(const char *op, const char *path, long long fd, long long offset, long long size,
			     long result)
{
	struct log *log = &log_here;

	result = outcome(result);
	if (log->count == log->room) {
		log->room = log->room ? 2 * log->room : 64;
		log->steps = realloc(log->steps, log->room * sizeof(*log->steps));
		if (!log->steps)
			die("out of memory");
	}
	log->steps[log->count++] = (struct step){op, path, thread_id(), fd, offset, size, result};
	return result;
}

static inline long note(const char *op, long long fd, long long offset, long long size, long result)
{
	return note_path(op, NULL, fd, offset, size, result);
}

static inline void print_number(FILE *out, const char *name, long long value, bool is_null)
{
	if (is_null)
		fprintf(out, ", \"%s\": null", name);
	else
		fprintf(out, ", \"%s\": %lld", name, value);
}

static inline void print_log(FILE *out, const struct log *log)
{
	for (size_t i = 0; i < log->count; i++) {
		const struct step *step = &log->steps[i];

		fprintf(out, "{\"op\": \"%s\", \"pid\": %d, \"tid\": %d", step->op, getpid(), step->tid);
		print_number(out, "fd", step->fd, step->fd == NONE);
		print_number(out, "offset", step->offset, step->offset == NONE);
		print_number(out, "size", step->size, step->size == NONE);
		print_number(out, "result", step->result, false);
		if (step->path)
			fprintf(out, ", \"path\": \"%s\"", step->path);
		fputs("}\n", out);
	}
}

static inline void write_out(const char *text, size_t size)
{
	while (size) {
		ssize_t written = write(STDOUT_FILENO, text, size);

		if (written < 0)
			die("cannot write to stdout");
		text += written;
		size -= written;
	}
}

/* Writes the lines of `count` logs at once. */
static inline void report(const struct log *logs, size_t count)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	for (size_t i = 0; out && i < count; i++)
		print_log(out, &logs[i]);
	if (!out || fclose(out))
		die("out of memory");
	write_out(text, size);
	free(text);
}

/* One line that is no step. */
static inline void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
	char text[65536];
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (size < 0 || (size_t)size >= sizeof(text))
		errno = 0, die("a line is too long to print");
	write_out(text, size);
}

static inline int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die("cannot open %s", path);
	return fd;
}

/* Waits until the first thread has ended: it stays as a zombie until the others have, too. */
static inline void wait_for_leader(void)
{
	char name[64], text[256];
	ssize_t size;

	snprintf(name, sizeof(name), "/proc/self/task/%d/stat", getpid());
	do {
		int fd = open_file(name, O_RDONLY);

		size = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[size > 0 ? size : 0] = 0;
	} while (size <= 0 || !strstr(text, ") Z "));
}

static inline long number(const char *text)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (!*text || *end)
		errno = 0, die("not a number: %s", text);
	return value;
}

#define usage(text) (errno = 0, die("usage: " text))

#endif /* WORK_H */
