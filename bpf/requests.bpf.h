/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Requests: accesses that a program submits in one place and whose result arrives in another, perhaps in another thread.
 * io_uring.bpf.c and aio.bpf.c take a slot here when a request is submitted and send its record when it completes.
 *
 * The table is an array with open addressing: found and given back in some 20 ns, where a hash map takes ten times that.
 * Nothing is ever pushed out of it. When no slot near its own is free, a request is not kept: io_uring's is put together
 * when it completes (mark no_enter), aio's is counted as lost (state_full).
 */
#ifndef FLAK_REQUESTS_BPF_H
#define FLAK_REQUESTS_BPF_H

#include "calls.bpf.h"

#define REQUEST_SLOTS 16384
#define REQUEST_PROBES 16

/* How the operands of a request are laid out. */
enum request_kind {
	REQUEST_UNKNOWN = 0, /* not decoded: counted by number */
	REQUEST_IGNORED,     /* touches no file: sockets, timers, polls */
	REQUEST_UNWANTED,    /* of a file that is of no interest */
	REQUEST_TRANSFER,
	REQUEST_SYNC,
	REQUEST_ALLOCATE,
	REQUEST_TRUNCATE,
	REQUEST_ADVICE,
	REQUEST_MEMORY_ADVICE,
	REQUEST_OPEN,
	REQUEST_CLOSE,
	REQUEST_STATX,
	REQUEST_RENAME,
	REQUEST_LINK,
	REQUEST_SYMLINK,
	REQUEST_UNLINK,
	REQUEST_MKDIR,
	REQUEST_SPLICE,
};

struct pending_request {
	u64 key;      /* struct io_kiocb *, or the iocb's address in its program; 0: the slot is free */
	u64 owner;    /* the ring, or the program's mm; 0: not filled in yet */
	u64 cookie;   /* user_data of the request: tells it from the next one at the same address */
	u64 start_ns; /* when it was submitted */
	u64 file_offset;
	u64 size_req;
	u64 arg_offset;
	u64 addr;
	u64 process; /* as task_state.process */
	struct copy_side source;
	u32 task_id;
	u32 file_id;
	u32 path_id;
	u32 marks;
	s32 fd;
	u32 slot; /* of a registered file */
	u32 base_path_id;
	u32 claim_id;
	u32 other_path_id;
	u32 call_id;
	u32 flags;
	u32 mode;
	u32 open_flags;
	s32 new_fd;
	u16 op;
	u16 kind;
	u16 has; /* enum flak_has */
	u8 is_long;
	u8 is_fixed;	  /* its file is a registered one */
	u8 uses_position; /* the offset is the file's own position */
	u8 is_told;	  /* its result is never told when it succeeds */
	u8 pad[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REQUEST_SLOTS);
	__type(key, u32);
	__type(value, struct pending_request);
} requests SEC(".maps");

/* calls.bpf.c */
u64 vector_size(u64 vector, u64 segments);
/* requests.bpf.c */
int find_request(u64 key, u64 owner);
int take_request(u64 key);
int send_request(struct pending_request *request, long ret, u64 now);
/* io_uring.bpf.c */
int resolve_request(struct pending_request *request, u32 is_own);

static __always_inline struct pending_request *request_at(int at)
{
	u32 index = at;

	return at < 0 ? NULL : bpf_map_lookup_elem(&requests, &index);
}

/* A copy that has not completed is told as the access to the file that it reads. */
static __always_inline void show_source(struct pending_request *request)
{
	request->file_offset = request->source.file_offset;
	request->file_id = request->source.file_id;
	request->path_id = request->source.path_id;
	request->fd = request->source.fd;
}

/* Gives a slot back. */
static __always_inline void drop_request(struct pending_request *request)
{
	request->owner = 0;
	__sync_fetch_and_and(&request->key, 0);
}

#endif /* FLAK_REQUESTS_BPF_H */
