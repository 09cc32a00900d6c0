// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Configuration, shared memory and the state of tasks. No hooks: the concerns in the other files use what stands here.
 */
#include "core.bpf.h"

char _license[] SEC("license")
= "Dual BSD/GPL";

const volatile bool has_rdonly_cast = false; /* the kernel has bpf_rdonly_cast() */
const volatile u32 page_shift = 12;	     /* log2 of the kernel's page size: arm64 has 12, 14 or 16 */
const volatile u32 self_tgid = 0;	     /* FLAK's process number in its own pid namespace */
const volatile bool follow_children = true;  /* what a target forks is a target */
const volatile bool all_files = false;	     /* pipes, sockets and devices too */
const volatile bool has_group_dead = false;  /* sched_process_exit tells whether the process is dead */

const volatile bool traces_faults = false; /* one of the ways in faults.bpf.c is attached */

u64 targets[FLAK_PID_WORDS] = {}; /* who is traced, one bit per process number */
u64 alive[FLAK_PID_WORDS] = {};	  /* of these, who has not ended */
struct flak_counters counters[FLAK_MAX_CPUS] = {};
u32 next_task_id = 0, next_file_id = 0, next_path_id = 0;
u32 rename_gen = 0;	/* successful renames and mounts so far, of everybody */
u32 armed_tgid = 0;	/* becomes a target at its next exec */
u32 excluded_tgid = 0;	/* FLAK itself, where the selection would have covered it */
u32 is_stopping = 0;	/* the enter hook is being taken off */
s32 live_processes = 0; /* targets that have not ended */

/* Structs that travel by pointer only are missing from BTF unless something names them; user space compares them all. */
const struct flak_access *const volatile _access_anchor = NULL;
const struct flak_operands *const volatile _operands_anchor = NULL;
const struct flak_access_long *const volatile _access_long_anchor = NULL;
const struct flak_name *const volatile _name_anchor = NULL;
const struct flak_task *const volatile _task_anchor = NULL;
const struct flak_process *const volatile _process_anchor = NULL;

/*
 * The task's state, made at its first use. NULL when the kernel has no memory, or when this CPU is amid another use of
 * task storage that we interrupted; storage is never evicted, unlike an LRU map's entries.
 */
__hidden struct task_state *state_of(struct task_struct *task)
{
	struct task_state *state = bpf_task_storage_get(&tasks, task, NULL, 0);

	if (state)
		return state;
	state = bpf_task_storage_get(&tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!state)
		return NULL;
	state->nr = -1;
	state->task = (u64)task;
	state->faults_before = task->min_flt + task->maj_flt;
	return state;
}

/* Id of a css_set's cgroup in the version 2 hierarchy: the inode number of its directory. */
static __always_inline u64 cgroup_id_of(u64 css)
{
	u64 cgroup = kaddr(css, struct css_set, dfl_cgrp);

	return kread(kcast(struct kernfs_node, kaddr(cgroup, struct cgroup, kn)), id);
}

/* The number of a task in its innermost pid namespace. */
static __always_inline u32 innermost_nr(u64 task)
{
	u64 pid_addr = kaddr(task, struct task_struct, thread_pid);
	struct pid *pid = kcast(struct pid, pid_addr);
	u64 at;

	if (!pid_addr)
		return 0;
	at = pid_addr + bpf_core_field_offset(struct pid, numbers) +
	     (u64)kread(pid, level) * bpf_core_type_size(struct upid);
	return (u32)load_u64(at); /* upid.nr is the first member */
}

/* Gives the task a new id, and says on the meta ring what it stands for; unsent, it is sent again at the next access. */
int identify(struct task_state *state)
{
	struct flak_task *record;
	struct task_struct *task;
	u64 comm, css, parent;
	u32 id;

	if (!state)
		return 0;
	task = kcast(struct task_struct, state->task);
	/* An id whose record was never sent is not given up: accesses carry it already. */
	id = state->task_id;
	if (state->is_task_sent || !id)
		id = __sync_fetch_and_add(&next_task_id, 1) + 1;
	comm = state->task + bpf_core_field_offset(struct task_struct, comm);
	css = kaddr(state->task, struct task_struct, cgroups);
	state->task_id = id;
	state->comm[0] = load_u64(comm);
	state->comm[1] = load_u64(comm + 8);
	state->css = css;
	state->tid = kread(task, pid);
	state->is_task_sent = false;

	record = bpf_ringbuf_reserve(&meta, sizeof(*record), 0);
	if (!record) {
		count(names_failed);
		return 0;
	}
	parent = kaddr(state->task, struct task_struct, real_parent);
	record->type = FLAK_META_TASK;
	record->size = sizeof(*record);
	record->task_id = id;
	record->start_time_ns = kread(task, start_boottime);
	record->cgroup_id = cgroup_id_of(css);
	record->pid = kread(task, tgid);
	record->tid = state->tid;
	record->ns_pid = innermost_nr(kaddr(state->task, struct task_struct, group_leader));
	record->ns_tid = innermost_nr(state->task);
	record->ppid = kread(kcast(struct task_struct, parent), tgid);
	record->uid = kread(kcast(struct cred, kaddr(state->task, struct task_struct, cred)), uid.val);
	((u64 *)record->comm)[0] = state->comm[0];
	((u64 *)record->comm)[1] = state->comm[1];
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	count(names_sent);
	state->is_task_sent = true;
	return 0;
}
