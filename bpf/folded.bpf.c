// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * What is kept of an access that found the ring full: it is added to a sum for its process, file and op, so that those
 * sums are exact whatever is lost. The table is an array with open addressing that user space maps. User space gives an
 * entry back when nothing has been added for a while: it clears the type, then the hash, and leaves the numbers, which go
 * on from there. When no slot near its own is free, an access is only counted.
 */
#include "core.bpf.h"

#define FOLDED_PROBES 32

_Static_assert(FLAK_FOLDED_MARKS == (FLAK_MARK_INTERRUPTED | FLAK_MARK_UNFINISHED | FLAK_MARK_ATTACHED |
				     FLAK_MARK_RESULT_UNKNOWN | FLAK_MARK_IS_WRITE | FLAK_MARK_IS_MAJOR),
	       "flak.h has the number, for readers without a compiler");

_Static_assert(FLAK_FOLDED_MARKS < 1 << FOLDED_OP_SHIFT, "the operation stands above them");

struct flak_folded folded[FLAK_FOLDED_SLOTS] = {};

/* The key's parts that are not for user space. */
struct folded_owner {
	u64 hash; /* 0: the slot is free */
	u64 process;
};
struct folded_owner folded_owners[FLAK_FOLDED_SLOTS] = {};

static __always_inline u64 mix(u64 hash, u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15; /* 2^64 / golden ratio */
	return hash ^ hash >> 32;
}

int fold(u64 process, u64 file, u64 access, s64 result, u64 latency_ns)
{
	u32 task_id = access >> 32, marks = access & FLAK_FOLDED_MARKS;
	u16 op = (u32)access >> FOLDED_OP_SHIFT;
	bool has_failed = result < 0;
	u64 hash, now = bpf_ktime_get_boot_ns();
	struct flak_folded *sum;

	hash = mix(0, process);
	hash = mix(hash, file);
	hash = mix(hash, (u64)marks << 32 | (u32)op << 16 | has_failed) | 1;
	for (u32 i = 0; i < FOLDED_PROBES; i++) {
		u32 at = ((hash >> 8) + i) & (FLAK_FOLDED_SLOTS - 1);
		struct folded_owner *owner = &folded_owners[at];
		u64 found = owner->hash ?: exchange_if(&owner->hash, 0, hash);

		sum = &folded[at];
		if (!found) { /* ours from now on */
			owner->process = process;
			sum->size = sizeof(*sum);
			sum->task_id = task_id;
			sum->file_id = file >> 32;
			sum->path_id = (u32)file;
			sum->marks = marks;
			sum->op = op;
			sum->has_failed = has_failed;
			sum->first_ns = now;
			exchange_if(&sum->accesses, 0, 0); /* a barrier: all of that before what says so */
			sum->type = FLAK_META_FOLDED;
		} else if (found != hash) {
			continue;
		} else if (sum->type &&
			   (owner->process != process || sum->file_id != file >> 32 || sum->path_id != (u32)file ||
			    sum->marks != marks || sum->op != op || sum->has_failed != has_failed)) {
			continue; /* one that is not filled in yet has the same hash of 64 bits: it is the same */
		}
		__sync_fetch_and_add(&sum->accesses, 1);
		__sync_fetch_and_add(&sum->result, has_failed ? 0 : result);
		__sync_fetch_and_add(&sum->latency_ns, latency_ns == FLAK_NONE ? 0 : latency_ns);
		sum->last_ns = now;
		count(folded);
		return 0;
	}
	return 0;
}
