// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Metadata: which files were looked for, looked at, made, renamed, removed, cut, written through to storage?
 *
 * All these calls are alike: a descriptor or a path (two for renames and links), perhaps with the folder it starts from,
 * and a few numbers. So a table says where each of them has what, and one function at enter and one at exit read it.
 *
 * A path is a claim (claims.bpf.c). What a descriptor holds is the kernel's.
 */
#include "calls.bpf.h"
#include "filters.bpf.h"

/* Which argument of a call holds what, from 1 on; 0: none does. */
struct call_shape {
	u8 fd;
	u8 dirfd; /* with a path and without this: the current folder */
	u8 path;
	u8 other_dirfd;
	u8 other_path;
	u8 offset;
	u8 size;
	u8 flags;
	u8 mode;
	u8 found; /* where stat(2) puts what it found */
};

#define FIRST_SHAPE FLAK_OP_NEWSTAT
#define SHAPES 32
#define SHAPE(name) [FLAK_OP_##name - FIRST_SHAPE]

static const struct call_shape shapes[SHAPES] = {
	SHAPE(NEWSTAT) = {.path = 1, .found = 2},
	SHAPE(NEWLSTAT) = {.path = 1, .found = 2},
	SHAPE(NEWFSTAT) = {.fd = 1},
	SHAPE(NEWFSTATAT) = {.dirfd = 1, .path = 2, .found = 3, .flags = 4},
	SHAPE(STATX) = {.dirfd = 1, .path = 2, .flags = 3, .found = 5},
	SHAPE(STATFS) = {.path = 1},
	SHAPE(FSTATFS) = {.fd = 1},
	SHAPE(ACCESS) = {.path = 1, .mode = 2},
	SHAPE(FACCESSAT) = {.dirfd = 1, .path = 2, .mode = 3},
	SHAPE(FACCESSAT2) = {.dirfd = 1, .path = 2, .mode = 3, .flags = 4},
	SHAPE(RENAME) = {.path = 1, .other_path = 2},
	SHAPE(RENAMEAT) = {.dirfd = 1, .path = 2, .other_dirfd = 3, .other_path = 4},
	SHAPE(RENAMEAT2) = {.dirfd = 1, .path = 2, .other_dirfd = 3, .other_path = 4, .flags = 5},
	SHAPE(LINK) = {.path = 1, .other_path = 2},
	SHAPE(LINKAT) = {.dirfd = 1, .path = 2, .other_dirfd = 3, .other_path = 4, .flags = 5},
	SHAPE(SYMLINK) = {.path = 1, .other_path = 2},
	SHAPE(SYMLINKAT) = {.path = 1, .other_dirfd = 2, .other_path = 3},
	SHAPE(UNLINK) = {.path = 1},
	SHAPE(UNLINKAT) = {.dirfd = 1, .path = 2, .flags = 3},
	SHAPE(MKDIR) = {.path = 1, .mode = 2},
	SHAPE(MKDIRAT) = {.dirfd = 1, .path = 2, .mode = 3},
	SHAPE(RMDIR) = {.path = 1},
	SHAPE(TRUNCATE) = {.path = 1, .size = 2},
	SHAPE(FTRUNCATE) = {.fd = 1, .size = 2},
	SHAPE(FALLOCATE) = {.fd = 1, .flags = 2, .offset = 3, .size = 4},
	SHAPE(FSYNC) = {.fd = 1},
	SHAPE(FDATASYNC) = {.fd = 1},
	SHAPE(SYNC_FILE_RANGE) = {.fd = 1, .offset = 2, .size = 3, .flags = 4},
	SHAPE(READAHEAD) = {.fd = 1, .offset = 2, .size = 3},
	SHAPE(FADVISE64) = {.fd = 1, .offset = 2, .size = 3, .flags = 4},
	SHAPE(GETDENTS64) = {.fd = 1, .size = 3},
	SHAPE(CLOSE_RANGE) = {.flags = 3},
};

static __always_inline const struct call_shape *shape_of(u16 op)
{
	return &shapes[(op - FIRST_SHAPE) & (SHAPES - 1)];
}

/* The argument of that place; registers have no index. */
static __always_inline u64 argument(struct pt_regs *regs, u8 place)
{
	switch (place) {
	case 1:
		return ARG1(regs);
	case 2:
		return ARG2(regs);
	case 3:
		return ARG3(regs);
	case 4:
		return ARG4(regs);
	case 5:
		return ARG5(regs);
	}
	return 0;
}

/* With AT_EMPTY_PATH and an empty string the descriptor itself is meant: so does the C library's fstat(). */
static __always_inline bool means_descriptor(struct pt_regs *regs, const struct call_shape *shape)
{
	char first = 0; /* a page that is not there yet: who passes the flag passes the empty string */

	if (!shape->dirfd || !shape->flags || !(argument(regs, shape->flags) & AT_EMPTY_PATH))
		return false;
	bpf_probe_read_user(&first, 1, (void *)argument(regs, shape->path));
	return !first;
}

int enter_metadata(STATE_ARGUMENT)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	const struct call_shape *shape;
	s32 fd = AT_FDCWD;
	u16 mode = 0;

	if (!state)
		return 0;
	shape = shape_of(state->op);
	if (shape->offset)
		state->file_offset = argument(regs, shape->offset);
	if (shape->size)
		state->size_req = argument(regs, shape->size);
	if (state->op == FLAK_OP_CLOSE_RANGE) {
		state->fd = (s32)ARG1(regs);
		state->size_req = (u64)(u32)ARG2(regs) - (u32)ARG1(regs) + 1;
		return 0;
	}
	if (shape->dirfd)
		fd = (s32)ARG1(regs);
	if (shape->fd || means_descriptor(regs, shape)) {
		if (!take_fd(task, state, (s32)ARG1(regs), &mode))
			state->op = FLAK_OP_NONE;
		return 0;
	}
	if (fd != AT_FDCWD)
		state->fd = fd;
	state->base_path_id = base_of(task, state, fd);
	return 0;
}

/* What stat(2) or statx(2) left in the program's memory. */
TAKES_MEMORY int read_found(struct stat_identity *found, u64 user, bool is_statx)
{
	u64 buffer[7] = {}, device = 0;

	if (!found)
		return 0;
	if (is_statx) {
		/* struct statx: mode at 28, ino, size; major and minor at 136 */
		if (bpf_probe_read_user(buffer, 3 * 8, (void *)(user + 24)) ||
		    bpf_probe_read_user(&device, sizeof(device), (void *)(user + 136)))
			return 0;
		found->mode = (buffer[0] >> 32) & 0xffff;
		found->ino = buffer[1];
		found->size = buffer[2];
		found->dev = (u32)device << 20 | (u32)(device >> 32);
		return 0;
	}
	if (bpf_probe_read_user(buffer, sizeof(buffer), (void *)user))
		return 0;
	/* struct stat: st_dev, st_ino; the first as new_encode_dev() makes it (include/linux/kdev_t.h) */
	found->dev = (u32)(buffer[0] >> 8 & 0xfff) << 20 | (u32)(buffer[0] & 0xff) | (u32)(buffer[0] >> 12 & 0xfff00);
	found->ino = buffer[1];
	found->mode = (u32)buffer[STAT_MODE_WORD];
	found->size = buffer[6];
	return 0;
}

/* Is this what stat(2) found of interest? Symbolic links are. */
static __always_inline bool is_wanted_find(struct stat_identity *found)
{
	return !found->ino || is_wanted_mode(found->mode) || (found->mode & S_IFMT) == S_IFLNK;
}

/* Takes the path of a call into the state; false when what was found is of no interest. */
static __always_inline bool take_path(struct task_state *state, struct pt_regs *regs, const struct call_shape *shape,
				      long ret)
{
	struct stat_identity found = {};
	u64 ids;

	if (shape->found && !ret)
		read_found(&found, argument(regs, shape->found), state->op == FLAK_OP_STATX);
	if (!is_wanted_find(&found))
		return false;
	/* The target of a symbolic link starts from the link, not from here. */
	if (state->op == FLAK_OP_SYMLINK || state->op == FLAK_OP_SYMLINKAT)
		state->base_path_id = 0;
	ids = intern_claim(argument(regs, shape->path), state->base_path_id, &found, IN_PROGRAM);
	state->path_id = (u32)ids;
	state->file_id = ids >> 32;
	return true;
}

/* Takes the paths of a call that ends into the state. 1: what it found is of no interest. */
int name_metadata(STATE_ARGUMENT, long ret)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	const struct call_shape *shape;

	if (!state)
		return 1;
	shape = shape_of(state->op);
	state->other_path_id = 0;
	if (shape->other_path) {
		s32 fd = shape->other_dirfd ? (s32)argument(regs, shape->other_dirfd) : AT_FDCWD;

		state->other_path_id =
			intern_claim(argument(regs, shape->other_path), base_of(task, state, fd), NULL, IN_PROGRAM);
	}
	return shape->path && !state->file && !take_path(state, regs, shape, ret);
}

int exit_metadata(STATE_ARGUMENT, long ret, u64 now)
{
	begin_state();
	struct task_struct *task = current_task();
	struct pt_regs *regs = regs_of(task);
	const struct call_shape *shape;
	struct flak_operands *operands;

	if (!state)
		return 0;
	shape = shape_of(state->op);
	if (is_call_cut(state, ret, now, state->op == FLAK_OP_GETDENTS64 && ret >= 0 ? ret : state->size_req))
		return 0;
	if (!shape->other_path && !shape->flags && !shape->mode) {
		struct flak_access *access = reserve_call(task_id_of(task, state), state, ret, now);

		if (access)
			bpf_ringbuf_submit(access, BPF_RB_NO_WAKEUP);
		return 0;
	}
	operands = reserve_long(task_id_of(task, state), state, ret, now);
	if (!operands)
		return 0;
	operands->other_path_id = state->other_path_id;
	if (shape->flags) {
		operands->map_flags = argument(regs, shape->flags);
		operands->has |= FLAK_HAS_FLAGS;
	}
	if (shape->mode) {
		operands->mode = argument(regs, shape->mode);
		operands->has |= FLAK_HAS_MODE;
	}
	submit_long(operands);
	return 0;
}
