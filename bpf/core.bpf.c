// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Configuration, shared memory and the state of tasks. No hooks: the concerns in the other files use what stands here.
 */
#include "core.bpf.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

const volatile u32 page_shift = 12;	    /* log2 of the kernel's page size: arm64 has 12, 14 or 16 */
const volatile bool all_files = false;	    /* pipes, sockets and devices too */
const volatile bool has_group_dead = false; /* sched_process_exit tells whether the process is dead */

const volatile bool filters = false; /* one of the next, or paths have verdicts (filters.bpf.h) */
const volatile bool only_failed = false;
const volatile u64 min_latency_ns = 0;
const volatile u64 min_size = 0;

const volatile bool sees_enter = false;	     /* calls are seen to begin: their durations are known */
const volatile bool traces_faults = false;   /* one of the ways in faults.bpf.c is attached */
const volatile bool traces_mappings = false; /* calls that map are of interest, and so is what exec maps */

struct flak_counters counters[FLAK_MAX_CPUS] = {};
u32 next_task_id = 0, next_file_id = 0, next_path_id = 0, next_claim_id = 0, next_call_id = 0;
u32 rename_gen = 0;				 /* successful renames and mounts so far, of everybody */
u64 unwanted_paths[2 * FLAK_VERDICT_WORDS] = {}; /* by path_id; user space sets them */
u32 is_stopping = 0;				 /* the enter hook is being taken off */
u32 own_tgid = 0;				 /* FLAK's process number for the kernel */
u32 own_level = 0;				 /* levels between the initial pid namespace and FLAK's own */
u64 own_pid_ns = 0;				 /* struct pid_namespace * of FLAK */

/* Structs that travel by pointer only are missing from BTF unless something names them; user space compares them all. */
const struct flak_access *const volatile _access_anchor = NULL;
const struct flak_operands *const volatile _operands_anchor = NULL;
const struct flak_access_long *const volatile _access_long_anchor = NULL;
const struct flak_name *const volatile _name_anchor = NULL;
const struct flak_task *const volatile _task_anchor = NULL;
const struct flak_container *const volatile _container_anchor = NULL;
const struct flak_process *const volatile _process_anchor = NULL;

/*
 * The task's state, made at its first use. NULL when the kernel has no memory, or when this CPU is amid another use of
 * task storage that we interrupted; storage is never evicted, unlike an LRU map's entries.
 */
#if IS_OLD_KERNEL
/* What a state is made from: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct task_state);
} empty_state SEC(".maps");

__hidden struct task_state *state_of(struct task_struct *task)
{
	struct task_state *state = known_state(task), *empty;
	u64 key = (u64)task;
	u32 zero = 0;

	if (state)
		return state;
	empty = bpf_map_lookup_elem(&empty_state, &zero);
	if (!empty)
		return NULL;
	empty->nr = -1;
	if (bpf_map_update_elem(&tasks, &key, empty, BPF_NOEXIST))
		return known_state(task); /* the table is full, or an iterator was faster */
	state = known_state(task);
	if (!state)
		return NULL;
	state->task = key;
	state->faults_before = tread(task, min_flt) + tread(task, maj_flt);
	return state;
}

/* A bounded wait: who has it is on another CPU, and done in less than a microsecond. */
__noinline int try_lock(u64 key)
{
	u32 held = 1;
	u64 i;

	for (i = 0; i < 256; i++) {
		if (!bpf_map_update_elem(&locks, &key, &held, BPF_NOEXIST))
			return 1;
	}
	return 0;
}

/* Ends what try_lock() began, with what it returned; who has waited in vain leaves it to its owner. */
__noinline int unlock(u64 key, u32 is_locked)
{
	if (is_locked)
		bpf_map_delete_elem(&locks, &key);
	return 0;
}
#else
__hidden struct task_state *state_of(struct task_struct *task)
{
	struct task_state *state = known_state(task);

	if (state)
		return state;
	state = bpf_task_storage_get(&tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!state)
		return NULL;
	state->nr = -1;
	state->task = (u64)task;
	state->faults_before = tread(task, min_flt) + tread(task, maj_flt);
	return state;
}
#endif

/* Id of a css_set's cgroup in the version 2 hierarchy: the inode number of its directory. */
static __always_inline u64 cgroup_id_of(u64 css)
{
	u64 cgroup = kaddr(css, struct css_set, dfl_cgrp);

	return kread(kcast(struct kernfs_node, kaddr(cgroup, struct cgroup, kn)), id);
}

/* The number of a task in its innermost pid namespace. */
static __always_inline u32 innermost_nr(u64 task)
{
	u64 pid = kaddr(task, struct task_struct, thread_pid);

	return pid ? (u32)load_u64(upid_of(task, kread(kcast(struct pid, pid), level))) : 0;
}

/* Number and start in ms, of the process: numbers come again, but not within a millisecond. */
static __always_inline u64 process_key(struct task_struct *task)
{
	u64 leader = kaddr(task, struct task_struct, group_leader);

	return (u64)(u32)kread(task, tgid) << 32 |
	       (u32)(kread(kcast(struct task_struct, leader), start_boottime) / 1000000);
}

/* Inode number of the task's mount namespace; 0 when it has left it already. */
static __always_inline u32 mnt_ns_of(u64 task)
{
	u64 nsproxy = kaddr(task, struct task_struct, nsproxy);
	u64 mnt_ns = nsproxy ? kaddr(nsproxy, struct nsproxy, mnt_ns) : 0;

	return mnt_ns ? kread(kcast(struct mnt_namespace, mnt_ns), ns.inum) : 0;
}

/* Gives the task a new id, and says on the meta ring what it stands for; unsent, it is sent again at the next access. */
int identify(STATE_ARGUMENT)
{
	begin_state();
	struct flak_task *record;
	struct task_struct *task;
	u64 comm, css, leader;
	u32 id;

	if (!state)
		return 0;
	task = kcast(struct task_struct, state->task);
	/* An id whose record was never sent is not given up: accesses carry it already. */
	id = state->task_id;
	if (state->is_task_sent || !id)
		id = next_id(&next_task_id);
	comm = state->task + bpf_core_field_offset(struct task_struct, comm);
	css = kaddr(state->task, struct task_struct, cgroups);
	state->task_id = id;
	state->comm[0] = load_u64(comm);
	state->comm[1] = load_u64(comm + 8);
	state->css = css;
	state->tid = kread(task, pid);
	state->process = process_key(task);
	state->is_task_sent = false;

	record = bpf_ringbuf_reserve(&meta, sizeof(*record), 0);
	if (!record) {
		count(names_failed);
		return 0;
	}
	leader = kaddr(state->task, struct task_struct, group_leader);
	record->type = FLAK_META_TASK;
	record->size = sizeof(*record);
	record->task_id = id;
	record->start_time_ns = kread(task, start_boottime);
	record->cgroup_id = cgroup_id_of(css);
	record->pid = nr_in_our_ns(leader);
	record->tid = nr_in_our_ns(state->task);
	record->ns_pid = innermost_nr(leader);
	record->ns_tid = innermost_nr(state->task);
	record->ppid = nr_in_our_ns(
		kaddr(kaddr(state->task, struct task_struct, real_parent), struct task_struct, group_leader));
	record->uid = kread(kcast(struct cred, kaddr(state->task, struct task_struct, cred)), uid.val);
	((u64 *)record->comm)[0] = state->comm[0];
	((u64 *)record->comm)[1] = state->comm[1];
	record->mnt_ns = mnt_ns_of(state->task);
	record->process_tag = (u32)(state->process >> 32) * 0x9e3779b1U + (u32)state->process;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	count(names_sent);
	state->is_task_sent = true;
	return 0;
}
