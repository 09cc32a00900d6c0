/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Which file is it, and under which name? From a descriptor, a mapping or a directory to the pair of ids that an access
 * carries. Identity is taken from the path's dentry: on overlayfs a mapping's f_inode is the lower file, the dentry's
 * inode is the one that stat and read show.
 */
#ifndef FLAK_NAMES_BPF_H
#define FLAK_NAMES_BPF_H

#include "core.bpf.h"

/* struct file * of a descriptor of the current task, 0 when it is closed. No lock: the table is freed by RCU. */
static __always_inline u64 file_of_fd(struct task_struct *task, s32 fd)
{
	u64 files = kaddr(task, struct task_struct, files);
	u64 table;

	if (!files || fd < 0)
		return 0;
	table = kaddr(files, struct files_struct, fdt);
	if ((u32)fd >= kread(kcast(struct fdtable, table), max_fds))
		return 0;
	return load_u64(kaddr(table, struct fdtable, fd) + (u64)fd * 8);
}

static __always_inline u32 mnt_id_of(u64 vfsmount_addr)
{
	return kread(kcast(struct mount, vfsmount_addr - bpf_core_field_offset(struct mount, mnt)), mnt_id);
}

static __always_inline int ref_of_dentry(struct task_state *state, u64 dentry_addr, u64 mnt, struct file_ref *ref)
{
	struct dentry *dentry = kcast(struct dentry, dentry_addr);
	struct name_entry *memo = &state->memo;
	u64 inode_addr = kaddr(dentry_addr, struct dentry, d_inode);
	u64 parent = kaddr(dentry_addr, struct dentry, d_parent);
	u64 hash_len = kread(dentry, d_name.hash_len);
	struct inode *inode = kcast(struct inode, inode_addr);
	u64 ino = kread(inode, i_ino);
	u32 ino_gen = kread(inode, i_generation);
	u16 mode = kread(inode, i_mode);
	u32 gen = rename_gen; /* before the walk: a rename during it makes the entry stale, not wrong */
	u32 mnt_id = mnt_id_of(mnt);

	ref->mode = mode;
	ref->marks = !kread(inode, i_nlink) && parent != dentry_addr ? FLAK_MARK_DELETED : 0;
	if (!is_wanted_mode(mode))
		return -1;
	if (state->memo_key.dentry != dentry_addr || state->memo_key.mnt != mnt || memo->inode != inode_addr ||
	    memo->ino != ino || memo->ino_gen != ino_gen || memo->parent != parent || memo->hash_len != hash_len ||
	    memo->mnt_id != mnt_id || memo->rename_gen != gen || !memo->is_sent) {
		/*
		 * In the task's state, not on the stack: before 6.13 (e00931c02568, "bpf: Enable private stack for
		 * eligible subprogs") a program and all it calls share 512 bytes, of which each function takes its
		 * own rounded up to 16, before 6.9 to 32.
		 */
		state->memo_key.dentry = dentry_addr;
		state->memo_key.mnt = mnt;
		__builtin_memset(memo, 0, sizeof(*memo));
		memo->inode = inode_addr;
		memo->ino = ino;
		memo->parent = parent;
		memo->hash_len = hash_len;
		memo->ino_gen = ino_gen;
		memo->rename_gen = gen;
		memo->mnt_id = mnt_id;
		memo->mode = mode;
		intern();
	}
	ref->file_id = memo->file_id;
	ref->path_id = memo->path_id;
	return 0;
}

/* Ids of an open file; −1 when its kind is not wanted. */
static __always_inline int ref_of_file(struct task_state *state, u64 file, struct file_ref *ref)
{
	return ref_of_dentry(state, kaddr(file, struct file, f_path.dentry), kaddr(file, struct file, f_path.mnt), ref);
}

/* Is this pair a path on a file system that stacks on another? Proves that a file really is a backing file. */
static __always_inline bool is_stacked_path(u64 dentry, u64 mnt)
{
	u64 sb_addr = kaddr(dentry, struct dentry, d_sb);
	struct super_block *sb = kcast(struct super_block, sb_addr);
	u64 magic;

	if (!sb_addr || sb_addr != kaddr(mnt, struct vfsmount, mnt_sb))
		return false;
	magic = kread(sb, s_magic);
	return magic == OVERLAYFS_SUPER_MAGIC || magic == FUSE_SUPER_MAGIC;
}

/* Memory that is shared and anonymous: the kernel gives it a nameless file called "dev/zero". */
static __always_inline bool is_shared_anonymous(u64 dentry_addr)
{
	struct dentry *dentry = kcast(struct dentry, dentry_addr);

	return kaddr(dentry_addr, struct dentry, d_parent) == dentry_addr &&
	       kread(dentry, d_name.hash_len) >> 32 == 8 &&
	       load_u64(kaddr(dentry_addr, struct dentry, d_name.name)) == 0x6f72657a2f766564ULL; /* little endian */
}

/* Ids of a mapping's file as the program opened it: what stands above a backing file. */
static __always_inline int ref_of_mapped(struct task_state *state, u64 file_addr, struct file_ref *ref)
{
	struct file *file = kcast(struct file, file_addr);
	u64 dentry = kaddr(file_addr, struct file, f_path.dentry);
	u64 mnt = kaddr(file_addr, struct file, f_path.mnt);

	if (bpf_core_field_exists(struct backing_file, user_path) && kread(file, f_mode) & FMODE_BACKING_HINT) {
		u64 user_dentry = kaddr(file_addr, struct backing_file, user_path.dentry);
		u64 user_mnt = kaddr(file_addr, struct backing_file, user_path.mnt);

		if (is_stacked_path(user_dentry, user_mnt)) {
			dentry = user_dentry;
			mnt = user_mnt;
		}
	}
	if (!all_files && is_shared_anonymous(dentry))
		return -1;
	return ref_of_dentry(state, dentry, mnt, ref);
}

#endif /* FLAK_NAMES_BPF_H */
