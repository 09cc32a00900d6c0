/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What a system call looks like to the concern that decodes it: one function at enter, one at exit. calls.bpf.c holds
 * the two hooks and calls these. They are global and ask for task and registers themselves, because the kernel verifies
 * a global function once and lets it have plain memory and numbers only.
 */
#ifndef FLAK_CALLS_BPF_H
#define FLAK_CALLS_BPF_H

#include "names.bpf.h"

/* descriptors.bpf.c: open*, creat, close, dup*, fcntl(F_DUPFD*), lseek */
int enter_descriptor(STATE_ARGUMENT);
int exit_descriptor(STATE_ARGUMENT, long ret, u64 now);
/* memory.bpf.c: mmap, munmap, mremap, madvise, msync */
int enter_mapping(STATE_ARGUMENT);
int exit_mapping(STATE_ARGUMENT, long ret, u64 now);
/* copies.bpf.c: sendfile64, splice, copy_file_range, ioctl(FICLONE, FICLONERANGE) */
int enter_copy(STATE_ARGUMENT);
int exit_copy(STATE_ARGUMENT, long ret, u64 now);
/* aio.bpf.c: io_submit, io_getevents, io_pgetevents */
int enter_aio(struct task_state *state, long nr);
int exit_aio(struct task_state *state, long ret);
int exit_aio_events(u32 unused, long ret);
extern const volatile bool traces_aio;
#define TRACES_AIO (!IS_OLD_KERNEL && traces_aio) /* their functions take memory, and batches are long loops */
extern const volatile bool traces_io_uring;
/* metadata.bpf.c: what looks for a path, or at a descriptor without moving its bytes */
int enter_metadata(STATE_ARGUMENT);
int name_metadata(STATE_ARGUMENT, long ret);
int exit_metadata(STATE_ARGUMENT, long ret, u64 now);

/* Takes file and ids of a descriptor into the state. False: of no interest, and so the call is. */
static __always_inline bool take_fd(struct task_struct *task, struct task_state *state, s32 fd, u16 *mode)
{
	struct file_ref ref = {};

	state->fd = fd;
	state->file = file_of_fd(task, fd);
	if (!state->file)
		return true; /* EBADF is worth a record */
	if (ref_of_file(state, state->file, &ref))
		return false;
	state->file_id = ref.file_id;
	state->path_id = ref.path_id;
	state->marks |= ref.marks;
	*mode = ref.mode;
	return true;
}

/* The directory a relative path starts from: the descriptor's, or the current one. */
static __always_inline u32 base_of(struct task_struct *task, struct task_state *state, s32 dirfd)
{
	struct file_ref ref = {};
	u64 file;

	if (dirfd == AT_FDCWD) {
		u64 fs = kaddr(task, struct task_struct, fs);

		if (!fs || ref_of_dentry(state, kaddr(fs, struct fs_struct, pwd.dentry),
					 kaddr(fs, struct fs_struct, pwd.mnt), &ref))
			return 0;
		return ref.path_id;
	}
	file = file_of_fd(task, dirfd);
	if (!file || ref_of_file(state, file, &ref))
		return 0;
	return ref.path_id;
}

/* Makes the other file of a copy the call's own. */
static __always_inline void exchange_sides(struct task_state *state)
{
	struct copy_side *source = &state->source;
	u64 file_offset = state->file_offset;
	u32 file_id = state->file_id, path_id = state->path_id, marks = state->marks;
	s32 fd = state->fd;

	state->file_offset = source->file_offset;
	state->file_id = source->file_id;
	state->path_id = source->path_id;
	state->marks = source->marks;
	state->fd = source->fd;
	source->file_offset = file_offset;
	source->file_id = file_id;
	source->path_id = path_id;
	source->marks = marks;
	source->fd = fd;
}

#endif /* FLAK_CALLS_BPF_H */
