// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The table of requests under way, and the record of one. No hooks of its own.
 */
#include "requests.bpf.h"
#include "filters.bpf.h"

static __always_inline u32 request_slot(u64 key, u32 probe)
{
	/* Both kinds of addresses are multiples of 16 at least; the high bits of the product are the mixed ones. */
	return ((u32)((key >> 4) * 0x9e3779b97f4a7c15ULL >> 48) + probe) & (REQUEST_SLOTS - 1);
}

/* Index of the slot that holds the request, −1: none. All places it can be in are looked at: slots fall free in between. */
__noinline int find_request(u64 key, u64 owner)
{
	struct pending_request *request;
	u32 i, at;

	for (i = 0; i < REQUEST_PROBES; i++) {
		at = request_slot(key, i);
		request = bpf_map_lookup_elem(&requests, &at);
		if (request && request->key == key && request->owner == owner)
			return at;
	}
	return -1;
}

/* Index of a free slot, which now is the caller's and empty but for its key; −1: none is free. */
__noinline int take_request(u64 key)
{
	struct pending_request *request;
	u32 i, at;

	for (i = 0; i < REQUEST_PROBES; i++) {
		at = request_slot(key, i);
		request = bpf_map_lookup_elem(&requests, &at);
		if (!request || request->key || __sync_val_compare_and_swap(&request->key, 0, key))
			continue;
		__builtin_memset((void *)request + sizeof(request->key), 0, sizeof(*request) - sizeof(request->key));
		request->fd = -1;
		request->new_fd = -1;
		request->file_offset = FLAK_NONE;
		request->size_req = FLAK_NONE;
		return at;
	}
	return -1;
}

static __always_inline void fill_request(struct flak_access *access, struct pending_request *request, s32 ret,
					 u64 latency_ns)
{
	access->ts_ns = request->start_ns;
	access->latency_ns = latency_ns;
	access->file_offset = request->file_offset;
	access->size_req = request->size_req;
	access->ret = ret;
	access->file_id = request->file_id;
	access->path_id = request->path_id;
	access->fd = request->fd;
	access->marks = request->marks;
	access->op = request->op;
}

static __always_inline void fill_request_operands(struct flak_operands *operands, struct pending_request *request)
{
	operands->addr = request->addr;
	operands->arg_offset = request->arg_offset;
	operands->map_flags = request->flags;
	operands->open_flags = request->open_flags;
	operands->mode = request->mode;
	operands->new_fd = request->new_fd;
	operands->claim_id = request->claim_id;
	operands->other_path_id = request->other_path_id;
	operands->call_id = request->call_id;
	operands->has = request->has;
}

static __always_inline void fold_request(struct pending_request *request, s64 ret, u64 latency_ns)
{
	fold_lost(request->process, request->task_id, request->file_id, request->path_id, request->marks, request->op,
		  ret, latency_ns);
}

/* Sends the record of a request that completed, or of one that will not any more (its marks say so). */
int send_request(struct pending_request *request, long ret, u64 now)
{
	u64 latency_ns, bytes;
	bool has_result;

	if (!request)
		return 0;
	latency_ns = now - request->start_ns;
	if (request->marks & FLAK_MARK_NO_ENTER ||
	    (request->marks & FLAK_MARK_RESULT_UNKNOWN && !(request->marks & FLAK_MARK_UNFINISHED)))
		latency_ns = FLAK_NONE;
	has_result = !(request->marks & (FLAK_MARK_UNFINISHED | FLAK_MARK_RESULT_UNKNOWN));
	bytes = request->size_req;
	if (has_result && ret >= 0 && (request->kind == REQUEST_TRANSFER || request->kind == REQUEST_SPLICE))
		bytes = ret;
	if (is_cut(request->path_id ?: request->claim_id, has_result && is_error(ret), latency_ns, bytes))
		return 0;
	if (request->is_long) {
		struct flak_access_long *record = (void *)reserve_access(request->task_id, sizeof(*record));

		if (!record) {
			fold_request(request, ret, latency_ns);
			return 0;
		}
		fill_request(&record->access, request, ret, latency_ns);
		fill_request_operands(begin_operands(record), request);
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	} else {
		struct flak_access *access = reserve_access(request->task_id, sizeof(*access));

		if (!access) {
			fold_request(request, ret, latency_ns);
			return 0;
		}
		fill_request(access, request, ret, latency_ns);
		bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
	}
	return 0;
}
