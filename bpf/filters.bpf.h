/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Which accesses of a traced task are wanted? What is cut here costs neither room in the ring nor work behind it. It is
 * counted by what it failed first, and takes no sequence number, so that it is no loss either.
 *
 * A path's verdict is user space's: patterns are matched once per path, and what is unwanted gets a bit. Until then its
 * accesses pass, and are left out behind the ring.
 */
#ifndef FLAK_FILTERS_BPF_H
#define FLAK_FILTERS_BPF_H

#include "core.bpf.h"

extern const volatile bool filters;
extern const volatile bool only_failed;
extern const volatile u64 min_latency_ns;
extern const volatile u64 min_size;

extern u64 unwanted_paths[2 * FLAK_VERDICT_WORDS]; /* of names, then of claims */

static __always_inline bool is_unwanted_path(u32 path_id)
{
	u32 number = path_id & ~FLAK_CLAIM_BIT;
	u32 at = path_id & FLAK_CLAIM_BIT ? FLAK_MAX_VERDICTS + number : number;

	return number < FLAK_MAX_VERDICTS && unwanted_paths[(at >> 6) & (2 * FLAK_VERDICT_WORDS - 1)] >> (at & 63) & 1;
}

/*
 * Is an access to be left out, and counted as such? latency_ns, bytes: FLAK_NONE when unknown; a latency that nobody knows
 * may be long, an access without a size has none.
 */
static __always_inline bool is_cut(u32 path_id, bool has_failed, u64 latency_ns, u64 bytes)
{
	if (!filters)
		return false;
	if (is_unwanted_path(path_id)) {
		count(filtered_path);
		return true;
	}
	if (only_failed && !has_failed) {
		count(filtered_failed);
		return true;
	}
	if (min_latency_ns && latency_ns < min_latency_ns) {
		count(filtered_min_latency);
		return true;
	}
	if (min_size && (bytes == FLAK_NONE || bytes < min_size)) {
		count(filtered_min_size);
		return true;
	}
	return false;
}

/* The same of a system call that has returned. */
static __always_inline bool is_call_cut(struct task_state *state, long ret, u64 now, u64 bytes)
{
	u64 latency_ns = state->marks & FLAK_MARK_NO_ENTER ? FLAK_NONE : now - state->enter_ns;

	/* An interrupted call has not failed: the kernel may restart it. */
	return is_cut(state->path_id, is_error(ret) && !is_restart(ret), latency_ns, bytes);
}

#endif /* FLAK_FILTERS_BPF_H */
