// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The table of requests under way, and the record of one. No hooks of its own.
 */
#include "requests.bpf.h"
#include "filters.bpf.h"

/* By the slot where a search begins: the places behind it that have ever been taken from there, a bit each. */
u32 request_reach[REQUEST_SLOTS] = {};

/* Forked programs have their iocbs at the same addresses, hence the owner. The high bits of a product are the mixed ones. */
static __always_inline u32 request_home(u64 key, u64 owner)
{
	u64 hash = (key >> 3) + (owner >> 6) * 0xff51afd7ed558ccdULL;

	return (u32)(hash * 0x9e3779b97f4a7c15ULL >> 48) & (REQUEST_SLOTS - 1);
}

/* Index of the slot that holds the request, −1: none. Slots fall free in between, so an empty one does not end the search. */
__noinline int find_request(u64 key, u64 owner)
{
	u32 i, at, home = request_home(key, owner), reach = request_reach[home];
	struct pending_request *request;

	for (i = 0; i < REQUEST_PROBES && reach >> i; i++) {
		if (!(reach >> i & 1))
			continue;
		at = (home + i) & (REQUEST_SLOTS - 1);
		request = bpf_map_lookup_elem(&requests, &at);
		if (request && request->key == key && request->owner == owner)
			return at;
	}
	return -1;
}

/* May it be that nobody will ever tell of its end? Silent ones, those reaped from memory, those of a ring that is gone. */
static __always_inline bool may_be_over(struct pending_request *request, u64 now)
{
	return request->owner &&
	       (request->is_silent || (!is_io_uring(request) && now - request->start_ns > AIO_PATIENCE_NS));
}

/* Index of a slot, which now is the caller's and empty but for its key; −1: none is to be had. */
__noinline int take_request(u64 key, u64 owner)
{
	u32 i, at, home = request_home(key, owner);
	struct pending_request *request;
	u64 before, now;

	for (i = 0; i < REQUEST_PROBES; i++) {
		at = (home + i) & (REQUEST_SLOTS - 1);
		request = bpf_map_lookup_elem(&requests, &at);
		if (!request || request->key || __sync_val_compare_and_swap(&request->key, 0, key))
			continue;
		clear_request(request);
		__sync_fetch_and_or(&request_reach[home], 1U << i);
		return at;
	}
	now = bpf_ktime_get_boot_ns();
	for (i = 0; i < REQUEST_PROBES; i++) {
		at = (home + i) & (REQUEST_SLOTS - 1);
		request = bpf_map_lookup_elem(&requests, &at);
		if (!request || !may_be_over(request, now))
			continue;
		before = request->key;
		if (before <= REQUEST_BUSY ||
		    __sync_val_compare_and_swap(&request->key, before, REQUEST_BUSY) != before)
			continue;
		end_unseen(request, now);
		clear_request(request);
		__sync_lock_test_and_set(&request->key, key);
		__sync_fetch_and_or(&request_reach[home], 1U << i);
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

/* A request has ended, and its result was not told: the record says so. The slot stays the caller's. */
int end_unseen(struct pending_request *request, u64 now)
{
	if (!request || request->is_unwanted)
		return 0;
	request->marks |= FLAK_MARK_RESULT_UNKNOWN;
	return send_request(request, 0, now);
}
