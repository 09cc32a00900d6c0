/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Requests: accesses that a program submits in one place and whose result arrives in another, perhaps in another thread.
 * io_uring.bpf.c and aio.bpf.c take a slot here when a request is submitted and send its record when it completes.
 *
 * The table is an array with open addressing: found and given back in some 20 ns, where a hash map takes ten times that.
 * When no slot near its own is free, one is taken from a request whose end may never be told, which is then recorded with
 * the mark result_unknown. Where there is none, a request is not kept, but put together when it completes (no_enter).
 */
#ifndef FLAK_REQUESTS_BPF_H
#define FLAK_REQUESTS_BPF_H

#include "calls.bpf.h"

#define REQUEST_SLOTS 16384
#define REQUEST_PROBES 32
#define REQUEST_BUSY 1		      /* in place of a key: somebody is sending it */
#define AIO_PATIENCE_NS 1000000000ULL /* whose end was not told by then may have been reaped from memory */

/* How the operands of a request are laid out. */
enum request_kind {
	REQUEST_UNKNOWN = 0, /* not decoded: counted by number */
	REQUEST_IGNORED,     /* touches no file: sockets, timers, polls */
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
	u64 key;    /* struct io_kiocb *, or the iocb's address in its program; 0: the slot is free; or REQUEST_BUSY */
	u64 owner;  /* the ring, or the program's mm; 0: not filled in yet */
	u64 cookie; /* user_data of the request: tells it from the next one at the same address */
	u64 start_ns; /* when it was submitted */
	u64 file_offset;
	u64 size_req;
	u64 arg_offset;
	u64 addr;
	u64 file;    /* struct file * where it was submitted, only to be compared; 0: there was none yet */
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
	u8 is_silent;	  /* nobody tells when it has succeeded */
	u8 is_unwanted;	  /* of a file that is of no interest */
	u8 is_stream;	  /* its file has no offsets */
	u8 pad[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REQUEST_SLOTS);
	__type(key, u32);
	__type(value, struct pending_request);
} requests SEC(".maps");

/* Requests that have no slot: one that completes and was not seen to begin, and a copy for whoever looks on. */
enum { LATE_REQUEST = 0, COPIED_REQUEST = 1 };
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct pending_request);
} other_requests SEC(".maps");

/* calls.bpf.c */
u64 vector_size(u64 vector, u64 segments);
/* requests.bpf.c */
int find_request(u64 key, u64 owner);
int take_request(u64 key, u64 owner);
int end_unseen(struct pending_request *request, u64 now);
int send_request(struct pending_request *request, long ret, u64 now);
/* io_uring.bpf.c */
int resolve_request(struct pending_request *request, u64 req);

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

static __always_inline bool is_io_uring(struct pending_request *request)
{
	return request->op >> 8 == 1;
}

/* Empties a request but for its key. */
static __always_inline void clear_request(struct pending_request *request)
{
	__builtin_memset((void *)request + sizeof(request->key), 0, sizeof(*request) - sizeof(request->key));
	request->fd = -1;
	request->new_fd = -1;
	request->file_offset = FLAK_NONE;
	request->size_req = FLAK_NONE;
}

static __always_inline struct pending_request *other_request(u32 which)
{
	return bpf_map_lookup_elem(&other_requests, &which);
}

/*
 * While the trace is stopping, the end of a request races with the record of what is under way: who takes the key sends.
 * False: it has been sent.
 */
static __always_inline bool claim_request(struct pending_request *request, u64 key)
{
	return !is_stopping || __sync_val_compare_and_swap(&request->key, key, REQUEST_BUSY) == key;
}

/* Gives a slot back. An exchange, for that is a barrier everywhere: what is stored before is seen before. */
static __always_inline void drop_request(struct pending_request *request)
{
	request->owner = 0;
	__sync_lock_test_and_set(&request->key, 0);
}

#endif /* FLAK_REQUESTS_BPF_H */
