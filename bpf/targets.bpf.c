// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Who is traced? The choices, the judgement of a task at an event, the matching of names, and the hook that sees a
 * process change its name. What happens to traits at fork, exec and exit stands in lifecycle.bpf.c, for processes that
 * run already in attach.bpf.c.
 */
#include "targets.bpf.h"

const volatile bool selects_numbers = false; /* --pid, CMD */
const volatile bool selects_names = false;   /* --comm */
const volatile bool judges_names = false;    /* some name is chosen or excluded */
const volatile bool has_exclusions = false;  /* some process is excluded by number or name */
const volatile bool judges_tasks = false;    /* one of the questions below is asked */
const volatile bool selects_threads = false; /* --tid */
const volatile bool selects_cgroups = false; /* --cgroup, --container */
const volatile bool only_visible = false;    /* only tasks that have a number in FLAK's pid namespace */
const volatile bool follow_children = true;  /* what a target forks is a target */
const volatile u32 tid_count = 0, excluded_tid_count = 0;
const volatile u32 uid_count = 0, excluded_uid_count = 0;
const volatile u32 excluded_cgroup_count = 0;
const volatile u32 uids[2 * FLAK_MAX_CHOICES] = {}; /* as in all such arrays: the chosen, then the excluded */

#if !IS_OLD_KERNEL
u32 traits[FLAK_TRAIT_WORDS] = {}; /* enum trait, a byte for each process number */
#endif
u32 armed_tgid = 0;		     /* joins the tree at its next exec */
s32 live_processes = 0;		     /* processes of the tree that have not ended */
s32 live_threads = 0;		     /* chosen threads that have not ended */
u32 tids[2 * FLAK_MAX_CHOICES] = {}; /* the kernel's numbers of threads, 0: not found, or ended */
u64 cgroup_ids[2 * FLAK_MAX_CHOICES] = {};
u32 cgroup_depths[2 * FLAK_MAX_CHOICES] = {}; /* levels from the root plus 1, 0: not known yet */
u32 cgroup_count = 0;			      /* of those chosen; not a setting, because one may be waited for */

#if IS_OLD_KERNEL
/* A byte is changed at once, so neighbours are not disturbed; of one process's changes each waits for the other. */
__noinline u32 change_traits(u32 tgid, u32 more, u32 fewer)
{
	volatile u8 *trait = trait_of(tgid);
	u32 before, is_locked;

	if (!trait)
		return 0;
	is_locked = try_lock(tgid);
	before = *trait;
	*trait = (before | more) & ~fewer;
	unlock(tgid, is_locked);
	return before;
}
#endif

static __always_inline bool is_one_of(volatile const u32 *list, u32 count, u32 value)
{
	u32 i;

	for (i = 0; i < FLAK_MAX_CHOICES; i++) {
		if (i >= count)
			return false;
		if (list[i] == value)
			return true;
	}
	return false;
}

static __always_inline u64 ancestor_id(u64 cgroup, u32 level)
{
	/* Before 6.1 ("cgroup: Replace cgroup->ancestor_ids[] with ->ancestors[]", 7f203bc89eb6) */
	if (!bpf_core_field_exists(struct cgroup, ancestors))
		return load_u64(cgroup + bpf_core_field_offset(struct cgroup___numbers, ancestor_ids) + (u64)level * 8);
	u64 ancestor = load_u64(cgroup + bpf_core_field_offset(struct cgroup, ancestors) + (u64)level * 8);

	return kread(kcast(struct kernfs_node, kaddr(ancestor, struct cgroup, kn)), id);
}

/*
 * A limit for the verifier; cgroup.max.depth is unlimited, but the path of a deeper one would be longer than most programs
 * can name.
 */
#define MAX_CGROUP_DEPTH 64

/* How deep in the hierarchy (the root: 1) the ancestor with that id stands, the cgroup itself being one; 0: none has it. */
__noinline int depth_of_ancestor(u64 cgroup, u64 id)
{
	u32 level = kread(kcast(struct cgroup, cgroup), level);
	u32 i;

	for (i = 0; i < MAX_CGROUP_DEPTH; i++) {
		if (i > level)
			break;
		if (ancestor_id(cgroup, i) == id)
			return i + 1;
	}
	return 0;
}

/* Is a cgroup one of `count` choices, from that index on, or below one? Where they stand is learnt on the way. */
__noinline int is_in_cgroups(u64 cgroup, u32 first, u32 count)
{
	u32 level = kread(kcast(struct cgroup, cgroup), level);
	u32 i;

	for (i = 0; i < FLAK_MAX_CHOICES; i++) {
		u32 which = (first + i) & (2 * FLAK_MAX_CHOICES - 1);
		u32 depth = cgroup_depths[which];

		if (i >= count)
			break;
		if (depth) {
			if (level + 1 >= depth && ancestor_id(cgroup, depth - 1) == cgroup_ids[which])
				return 1;
			continue;
		}
		depth = depth_of_ancestor(cgroup, cgroup_ids[which]);
		if (depth) {
			cgroup_depths[which] = depth;
			return 1;
		}
	}
	return 0;
}

/* The questions that are asked of a task at each event. */
static __noinline int judge_task(u64 task)
{
	u32 tid, uid;
	u64 cgroup;

	if (!judges_tasks)
		return 1;
	if (only_visible && !nr_in_our_ns(task))
		return 0;
	if (tid_count || excluded_tid_count) {
		tid = kread(kcast(struct task_struct, task), pid);
		if (tid_count && !is_one_of(tids, tid_count, tid))
			return 0;
		if (is_one_of(tids + FLAK_MAX_CHOICES, excluded_tid_count, tid))
			return 0;
	}
	if (uid_count || excluded_uid_count) {
		uid = kread(kcast(struct cred, kaddr(task, struct task_struct, cred)), uid.val);
		if (uid_count && !is_one_of(uids, uid_count, uid))
			return 0;
		if (is_one_of(uids + FLAK_MAX_CHOICES, excluded_uid_count, uid))
			return 0;
	}
	if (!selects_cgroups && !excluded_cgroup_count)
		return 1;
	cgroup = kaddr(kaddr(task, struct task_struct, cgroups), struct css_set, dfl_cgrp);
	if (selects_cgroups && !is_in_cgroups(cgroup, 0, cgroup_count))
		return 0;
	return !excluded_cgroup_count || !is_in_cgroups(cgroup, FLAK_MAX_CHOICES, excluded_cgroup_count);
}

__noinline int is_chosen_thread(u32 tid)
{
	return is_one_of(tids, tid_count, tid);
}

/* A thread has ended: its number may be given to another. */
__noinline int end_thread(u32 tid)
{
	u32 i;

	for (i = 0; i < 2 * FLAK_MAX_CHOICES; i++) {
		/* Whoever takes it out counts: the iterator that adopts it may see its end, too. */
		if (tids[i] != tid || exchange_if(&tids[i], tid, 0) != tid)
			continue;
		if (i < FLAK_MAX_CHOICES)
			__sync_fetch_and_add(&live_threads, -1);
	}
	return 0;
}

/* A thread other than the first has made an exec: it took over the first one's number. */
__noinline int rename_thread(u32 tid, u32 now)
{
	u32 i;

	for (i = 0; i < 2 * FLAK_MAX_CHOICES; i++) {
		if (tids[i] == tid)
			tids[i] = now;
	}
	return 0;
}

/*
 * Names are matched by a machine that user space has made of all patterns together (src/flak/comms.py). A state is a bit:
 * "so many pieces of that pattern are matched". Each byte of the name moves the bits that accept it one up; those that a
 * star follows stay too.
 */
const volatile u64 name_accepts[256 * FLAK_NAME_WORDS] = {}; /* by byte: the states it leads on from */
const volatile u64 name_starts[FLAK_NAME_WORDS] = {};
const volatile u64 name_stays[FLAK_NAME_WORDS] = {};
const volatile u64 name_chosen[FLAK_NAME_WORDS] = {}; /* final states of patterns that choose */
const volatile u64 name_excluded[FLAK_NAME_WORDS] = {};

/* What a name, given as two words, makes of a process: TRAIT_NAMED, TRAIT_EXCLUDED_NAME. */
__noinline int traits_of_name(u64 first, u64 second)
{
	u32 found = 0;
	u32 word, i;

	for (word = 0; word < FLAK_NAME_WORDS; word++) {
		u64 states = name_starts[word];

		for (i = 0; i < FLAK_COMM_LEN; i++) {
			u32 byte = (i < 8 ? first : second) >> (i & 7) * 8 & 0xff;

			if (!byte)
				break;
			states = (states & name_accepts[byte * FLAK_NAME_WORDS + word]) << 1 |
				 (states & name_stays[word]);
		}
		if (states & name_chosen[word])
			found |= TRAIT_NAMED;
		if (states & name_excluded[word])
			found |= TRAIT_EXCLUDED_NAME;
	}
	return found;
}

static __always_inline bool is_in_exec(struct task_struct *task)
{
	struct pt_regs *regs = regs_of(task);
	long nr = syscall_nr(regs);

	return task == current_task() && (u64)nr < FLAK_MAX_SYSCALLS &&
	       op_of_nr[nr & (FLAK_MAX_SYSCALLS - 1)] == FLAK_NR_EXEC;
}

/*
 * prctl(PR_SET_NAME) and writes to /proc/PID/comm; before the new name is in place. An exec comes by here, too, but is
 * left to flak_exec: the old name counts until it is told.
 */
SEC("?tp_btf/task_rename")
int BPF_PROG(flak_rename, struct task_struct *task, const char *comm)
{
	u64 name[2] = {};

	task = argument_of(ctx, 0, task);
	if (tread(task, pid) != tread(task, tgid) || is_in_exec(task))
		return 0; /* threads may call themselves what they like */
	bpf_probe_read_kernel_str(name, sizeof(name), comm);
	add_traits(tread(task, tgid), traits_of_name(name[0], name[1]));
	return 0;
}
