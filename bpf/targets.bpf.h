/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Who is traced? Two questions, both of which must be answered by yes (docs/architecture.md, "Who is traced").
 *
 * Of the process: was it chosen by number or by name, or made by one that was? That is known before it runs: its traits
 * are written at fork, exec, rename and by the iterator, and only looked up here.
 *
 * Of the task: is it one of these threads, in one of these cgroups, does it run as one of these users, now? That is
 * judged at each event, and not at all when nobody asked.
 */
#ifndef FLAK_TARGETS_BPF_H
#define FLAK_TARGETS_BPF_H

#include "core.bpf.h"

/* Which questions there are. */
extern const volatile bool selects_numbers;
extern const volatile bool selects_names;
extern const volatile bool judges_names; /* some name is chosen or excluded */
extern const volatile bool has_exclusions;
extern const volatile bool judges_tasks;
extern const volatile bool selects_threads;
extern const volatile bool follow_children;

/* What is known of a process. */
enum trait {
	TRAIT_IN_TREE = 0x1,	    /* chosen by number, or made by such a process */
	TRAIT_NAMED = 0x2,	    /* since its exec its leader has had a chosen name */
	TRAIT_FOLLOWED = 0x4,	    /* made by a process chosen by name */
	TRAIT_SHUT_OUT = 0x8,	    /* excluded by number, or made by such a process */
	TRAIT_EXCLUDED_NAME = 0x10, /* since its exec its leader has had an excluded name */
	TRAIT_ALIVE = 0x20,	    /* in the tree, and has not ended */
	TRAIT_ENDED = 0x40,
};

extern u32 armed_tgid;
extern s32 live_processes;
extern s32 live_threads;

/* Not global: a global function may not be handed a typed pointer. */
static int judge_task(u64 task);
int traits_of_name(u64 first, u64 second);
int is_chosen_thread(u32 tid);
int end_thread(u32 tid);
int rename_thread(u32 tid, u32 now);

#if IS_OLD_KERNEL
/* A byte for each process number. Before 5.15 a variable may have 4 MiB at most, with all others: hence a map of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLAK_MAX_PIDS / 8);
	__type(key, u32);
	__type(value, u8[8]);
} trait_table SEC(".maps");

static __always_inline volatile u8 *trait_of(u32 tgid)
{
	u32 at = (tgid & (FLAK_MAX_PIDS - 1)) >> 3;
	u8 *eight = bpf_map_lookup_elem(&trait_table, &at);

	return eight ? eight + (tgid & 7) : NULL;
}

static __always_inline u32 traits_of(u32 tgid)
{
	volatile u8 *trait = trait_of(tgid);

	return trait ? *trait : 0;
}

u32 change_traits(u32 tgid, u32 more, u32 fewer);

static __always_inline u32 add_traits(u32 tgid, u32 more)
{
	return change_traits(tgid, more, 0);
}

static __always_inline u32 drop_traits(u32 tgid, u32 fewer)
{
	return change_traits(tgid, 0, fewer);
}
#else
/* A byte for each process number, four to a word: so they can be changed atomically. */
extern u32 traits[FLAK_TRAIT_WORDS];
#define trait_word(tgid) (&traits[((tgid) >> 2) & (FLAK_TRAIT_WORDS - 1)])
#define trait_shift(tgid) (((tgid)&3) * 8)

static __always_inline u32 traits_of(u32 tgid)
{
	return *trait_word(tgid) >> trait_shift(tgid) & 0xff;
}

/* Adds traits; returns those the process had before. */
static __always_inline u32 add_traits(u32 tgid, u32 more)
{
	return __sync_fetch_and_or(trait_word(tgid), more << trait_shift(tgid)) >> trait_shift(tgid) & 0xff;
}

/* Takes traits away; returns those the process had before. */
static __always_inline u32 drop_traits(u32 tgid, u32 fewer)
{
	return __sync_fetch_and_and(trait_word(tgid), ~(fewer << trait_shift(tgid))) >> trait_shift(tgid) & 0xff;
}
#endif

static __always_inline bool is_covered_process(u32 tgid)
{
	u32 has;

	if (!selects_numbers && !selects_names && !has_exclusions)
		return true;
	has = traits_of(tgid);
	if (has_exclusions && has & (TRAIT_SHUT_OUT | TRAIT_EXCLUDED_NAME))
		return false;
	if (selects_names && !(has & (TRAIT_NAMED | TRAIT_FOLLOWED)))
		return false;
	return !selects_numbers || has & TRAIT_IN_TREE;
}

/* Would the task be traced, were it not FLAK? */
static __always_inline bool is_covered(const struct task_struct *task)
{
	return is_covered_process(tread(task, tgid)) && (!judges_tasks || judge_task((u64)task));
}

/* Is the task to be traced? FLAK never is. */
static __always_inline bool is_target(const struct task_struct *task)
{
	return is_covered(task) && (u32)tread(task, tgid) != own_tgid;
}

/*
 * `live_processes` counts the processes of the tree that have not ended, each once: whoever changes its bit counts. So a
 * process that ends while it is being adopted is neither forgotten nor waited for.
 */
static __always_inline void join_tree(u32 tgid)
{
	if (!(add_traits(tgid, TRAIT_IN_TREE | TRAIT_ALIVE) & TRAIT_ALIVE))
		__sync_fetch_and_add(&live_processes, 1);
}

static __always_inline void leave_tree(u32 tgid)
{
	if (drop_traits(tgid, TRAIT_ALIVE) & TRAIT_ALIVE)
		__sync_fetch_and_add(&live_processes, -1);
}

/* Threads of the task's process that have not ended. */
static __always_inline int threads_alive(const struct task_struct *task)
{
	return kread(kcast(struct signal_struct, kaddr(task, struct task_struct, signal)), live.counter);
}

/* Traits that a process hands on to those it makes. */
static __always_inline u32 inherited_traits(u32 parent_tgid)
{
	u32 has = follow_children ? traits_of(parent_tgid) : 0;
	u32 hands_on = has & (TRAIT_IN_TREE | TRAIT_SHUT_OUT);

	return has & (TRAIT_NAMED | TRAIT_FOLLOWED) ? hands_on | TRAIT_FOLLOWED : hands_on;
}

/* Traits that its leader's name gives a process. */
static __always_inline u32 traits_by_name(u64 leader)
{
	u64 comm = leader + bpf_core_field_offset(struct task_struct, comm);

	return judges_names ? traits_of_name(load_u64(comm), load_u64(comm + 8)) : 0;
}

/* Gives a process traits it may have already; returns whether one was new. */
static __always_inline bool give_traits(u32 tgid, u32 more)
{
	u32 before;

	if (!more)
		return false;
	before = add_traits(tgid, more);
	/* Nobody waits for the end of a process that is shut out. */
	if ((before | more) & TRAIT_SHUT_OUT)
		leave_tree(tgid);
	else if (more & TRAIT_IN_TREE)
		join_tree(tgid);
	return more & ~before;
}

#endif /* FLAK_TARGETS_BPF_H */
