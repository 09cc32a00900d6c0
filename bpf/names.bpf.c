// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Names: from (dentry, mount) to ids, and the walk that spells a path. No hooks of its own; called for every file that
 * differs from the task's last one.
 *
 * The `names` map is a saving, not a truth: what it forgets gets new ids and is sent again, and the reader folds equal
 * identities. That is why an LRU is right here and nowhere else.
 */
#include "names.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct name_key);
	__type(value, struct name_entry);
} names SEC(".maps");

/*
 * Zero, but the verifier does not know. Before 6.7 (ab5cfac139ab, "bpf: verify callbacks as if they are called unknown
 * number of times"; 6.1.192 does not have it) it looks at a callback for its first round only: with a position known to
 * be 0 the checks of a full buffer in walk_step() could never hold and were removed as dead code.
 */
volatile u32 unknown_zero = 0;

struct identity {
	u64 ino;
	u32 dev;
	u32 ino_gen;
	u64 inode; /* where the rest does not tell files apart: as long as the inode lives, its address does */
};
#define ANY_INODE (~0ULL) /* in its place: the file that was last given an id under this device and number */

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct identity);
	__type(value, u32);
} identities SEC(".maps");

/* What tells one claim from another (claims.bpf.c). */
struct claim_key {
	u64 hash[2];
	struct stat_identity found;
	u32 latest_file_id; /* of the inode number that was found: the same string may lead to the next file of that number */
	u32 base_path_id;
	u32 len;
	u32 pad;
};

#define MAX_STEPS (2 * FLAK_PATH_MAX) /* every name has a byte at least, every mount one name */

/* A walk from a file towards the root. */
struct walk {
	u64 dentry;
	u64 mnt; /* struct mount * */
	u64 fingerprint;
	u32 at;
	u32 flags;
};

/*
 * Room for one name record, and for what makes it: a program and all it calls have 512 bytes of stack together. Bytes
 * behind FLAK_PATH_MAX let the last component be copied before its length is known.
 */
struct name_scratch {
	struct flak_name head;
	u8 bytes[FLAK_PATH_MAX + 512];
	union {
		struct walk walk;
		struct claim_key claim;
	};
};

/*
 * Two for each CPU: a walk may be interrupted by a fault that walks too. They are taken by a bit each and not by a count
 * of levels: programs that can be preempted (fentry, iterators) do not end in the reverse order in which they began.
 */
#define SCRATCH_COUNT 2

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_COUNT);
	__type(key, u32);
	__type(value, struct name_scratch);
} scratch SEC(".maps");

struct scratch_use {
	u64 taken; /* a bit for each scratch */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch_use);
} scratch_uses SEC(".maps");

/* One step towards the root: append this name and go to its parent, or cross to the mount it is mounted on. */
static long walk_step(u32 index, void *context)
{
	struct name_scratch *out = bpf_map_lookup_elem(&scratch, context);
	struct dentry *dentry;
	struct walk *walk;
	u64 parent, hash_len;
	u32 at, len;

	if (!out)
		return 1;
	walk = &out->walk;
	dentry = kcast(struct dentry, walk->dentry);
	if (kaddr(walk->mnt, struct mount, mnt.mnt_root) == walk->dentry) {
		u64 above = kaddr(walk->mnt, struct mount, mnt_parent);

		if (above == walk->mnt) {
			if (!kaddr(walk->mnt, struct mount, mnt_ns))
				walk->flags |= FLAK_NAME_DETACHED;
			return 1;
		}
		walk->dentry = kaddr(walk->mnt, struct mount, mnt_mountpoint);
		walk->mnt = above;
		return 0;
	}
	parent = kaddr(walk->dentry, struct dentry, d_parent);
	hash_len = kread(dentry, d_name.hash_len);
	walk->fingerprint = (walk->fingerprint ^ walk->dentry ^ hash_len) * 0x9e3779b97f4a7c15ULL;
	len = (hash_len >> 32) & 0xff; /* qstr.len of at most NAME_MAX */
	at = walk->at;
	if (at + len + 1 > FLAK_PATH_MAX) {
		walk->flags |= FLAK_NAME_TRUNCATED;
		return 1;
	}
	at &= 2 * FLAK_PATH_MAX - 1; /* for the verifier */
	if (at > FLAK_PATH_MAX)
		return 1;
	bpf_probe_read_kernel(&out->bytes[at], len, (void *)kaddr(walk->dentry, struct dentry, d_name.name));
	at += len;
	out->bytes[at] = 0;
	walk->at = at + 1;
	if (parent == walk->dentry) { /* a name without a tree: memfd, pipe, anonymous inode */
		walk->flags |= FLAK_NAME_DETACHED;
		return 1;
	}
	walk->dentry = parent;
	return 0;
}

make_repeatable(walk_step, MAX_STEPS);

/* Inode number of the mount namespace that a mount is in; 0: in none, as what the kernel mounts for itself. */
static __always_inline u32 mount_ns_of(u64 mount)
{
	u64 mnt_ns = kaddr(mount, struct mount, mnt_ns);

	/* An error pointer marks the kernel's own mounts (MNT_NS_INTERNAL). */
	if (!mnt_ns || mnt_ns >= -MAX_ERRNO)
		return 0;
	return kread(kcast(struct mnt_namespace, mnt_ns), ns.inum);
}

/* Id of the file with this identity, a new one when there is none yet. Not inlined, for the room its keys take. */
__noinline u32 file_id_of(u64 inode, u64 ino, u32 dev, u32 ino_gen)
{
	struct identity identity = {.inode = inode, .ino = ino, .dev = dev, .ino_gen = ino_gen};
	u32 *known = bpf_map_lookup_elem(&identities, &identity);
	u32 id;

	if (known)
		return *known;
	id = next_id(&next_file_id);
	bpf_map_update_elem(&identities, &identity, &id, BPF_ANY);
	identity.inode = ANY_INODE;
	identity.ino_gen = 0;
	bpf_map_update_elem(&identities, &identity, &id, BPF_ANY); /* the latest of that number */
	return id;
}

/* Id of the file that was last given one under this inode number, 0: none. Numbers come again. */
static __always_inline u32 latest_file_id(u32 dev, u64 ino)
{
	struct identity latest = {.ino = ino, .dev = dev, .inode = ANY_INODE};
	u32 *id = bpf_map_lookup_elem(&identities, &latest);

	return id ? *id : 0;
}

/* A scratch that nobody on this CPU uses, and which one; NULL when all are taken. */
static __always_inline struct name_scratch *scratch_get(u32 *which)
{
	u32 zero = 0;
	struct scratch_use *use = bpf_map_lookup_elem(&scratch_uses, &zero);

	if (!use)
		return NULL;
	if (!(or_own(&use->taken, 1) & 1))
		*which = 0;
	else if (!(or_own(&use->taken, 2) & 2))
		*which = 1;
	else
		return NULL;
	return bpf_map_lookup_elem(&scratch, which);
}

static __always_inline void scratch_put(u32 which)
{
	u32 zero = 0;
	struct scratch_use *use = bpf_map_lookup_elem(&scratch_uses, &zero);

	if (use)
		and_own(&use->taken, which ? ~2ULL : ~1ULL);
}

static __always_inline bool send_name(struct name_scratch *out, u32 bytes)
{
	u32 size = sizeof(out->head) + bytes;

	if (size > offsetof(struct name_scratch, walk))
		return false;
	out->head.type = FLAK_META_NAME;
	out->head.size = size;
	/* The last quarter of the ring is kept for processes and tasks: a storm of failed opens must not push them out. */
	if (bpf_ringbuf_query(&meta, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&meta, BPF_RB_RING_SIZE) / 4 * 3 ||
	    bpf_ringbuf_output(&meta, out, size, BPF_RB_NO_WAKEUP)) {
		count(names_failed);
		return false;
	}
	count(names_sent);
	return true;
}

/*
 * Completes the current task's memo, the present looks of its memo_key, with ids. Known and unchanged: from the map. Else
 * the path is walked; only when it differs from what was sent does it get a new id and a new record.
 *
 * Not static: the kernel verifies a global function once, not once for each way to reach it. It finds the state itself,
 * because 6.1 takes map keys and values from the stack or from a map's value, not from memory that a global function was
 * handed; the stack has no room for them.
 */
int intern(void)
{
	struct task_state *state = known_state(current_task());
	struct name_key *key;
	struct name_entry *entry;
	struct name_entry *known;
	u64 inode_address = 0;
	struct name_scratch *out;
	struct super_block *sb;
	struct inode *inode;
	struct walk *walk;
	bool is_same;
	u32 which;

	if (!state)
		return -1;
	key = &state->memo_key;
	entry = &state->memo;
	known = bpf_map_lookup_elem(&names, key);
	is_same = known && known->inode == entry->inode && known->ino == entry->ino &&
		  known->ino_gen == entry->ino_gen && known->parent == entry->parent &&
		  known->hash_len == entry->hash_len && known->mnt_id == entry->mnt_id && known->is_sent;
	if (is_same && known->rename_gen == entry->rename_gen) {
		*entry = *known;
		return 0;
	}

	out = scratch_get(&which);
	if (!out)
		return -1;
	walk = &out->walk;
	walk->at = 0;
	walk->flags = 0;
	walk->fingerprint = 0;
	walk->dentry = key->dentry;
	walk->mnt = key->mnt - bpf_core_field_offset(struct mount, mnt);
	if (repeat_in_scratch(MAX_STEPS, walk_step, which) >= MAX_STEPS)
		walk->flags |= FLAK_NAME_TRUNCATED;
	entry->fingerprint = walk->fingerprint;
	if (is_same && known->fingerprint == walk->fingerprint) {
		entry->file_id = known->file_id;
		entry->path_id = known->path_id;
		entry->is_sent = true;
		goto done;
	}

	inode = kcast(struct inode, entry->inode);
	sb = kcast(struct super_block, kaddr(entry->inode, struct inode, i_sb));
	if (!entry->ino_gen || kread(sb, s_magic) == BTRFS_SUPER_MAGIC) {
		inode_address = entry->inode;
		walk->flags |= FLAK_NAME_WEAK;
	}
	if (known && !known->is_sent && known->ino == entry->ino && known->hash_len == entry->hash_len) {
		entry->file_id = known->file_id; /* an unsent name keeps its ids */
		entry->path_id = known->path_id;
	} else {
		entry->file_id = file_id_of(inode_address, entry->ino, kread(sb, s_dev), entry->ino_gen);
		entry->path_id = next_id(&next_path_id);
	}
	out->head.path_id = entry->path_id;
	out->head.file_id = entry->file_id;
	out->head.dev = kread(sb, s_dev);
	out->head.ino = entry->ino;
	out->head.ino_gen = entry->ino_gen;
	out->head.base_path_id = 0;
	out->head.mnt_id = entry->mnt_id;
	out->head.mnt_ns = mount_ns_of(walk->mnt);
	out->head.fs_magic = kread(sb, s_magic);
	out->head.mode = entry->mode;
	out->head.flags = walk->flags;
	out->head.file_size = kread(inode, i_size);
	entry->is_sent = send_name(out, walk->at);
done:
	scratch_put(which);
	bpf_map_update_elem(&names, key, entry, BPF_ANY);
	return 0;
}

#define ARGV0_MAX 256

struct exec_record {
	struct flak_process process;
	u8 argv0[ARGV0_MAX];
};

/*
 * Sends an exec with argv[0] behind it. Put together in the room for names: the 512 bytes of stack are those of a
 * program and all it calls together, and flak_exec calls intern(). Returns 0 when it was sent.
 */
TAKES_MEMORY int send_exec(struct flak_process *process, u64 user_string)
{
	struct exec_record *record;
	u32 which, size = 0;
	long len;
	int ret;

	record = process ? (void *)scratch_get(&which) : NULL;
	if (!record)
		return -1;
	record->process = *process;
	len = bpf_probe_read_user_str(record->argv0, sizeof(record->argv0), (void *)user_string);
	if (len > 0)
		size = (u32)(len - 1) & (ARGV0_MAX - 1);
	record->process.size = sizeof(record->process) + size;
	ret = bpf_ringbuf_output(&meta, record, sizeof(record->process) + size, BPF_RB_NO_WAKEUP);
	scratch_put(which);
	return ret;
}
