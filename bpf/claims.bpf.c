// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * Strings that programs pass as paths. What the kernel found under one, only an open tells (by its descriptor); of all
 * other calls the string is kept as a claim, with the folder it starts from, and with what stat(2) said about the file.
 *
 * A claim is interned like a name: a program that looks for the same file a thousand times sends its string once. No hooks
 * of its own; read at exit, because at entry the page is often not there yet.
 */
#include "names.bpf.h"

const volatile u64 claim_seed = 0; /* random, so that nobody can make two strings look the same on purpose */

struct claim_ids {
	u32 path_id;
	u32 file_id;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct claim_key);
	__type(value, struct claim_ids);
} claims SEC(".maps");

/* A path of a task that is not the current one, copied there by an iterator (pending.bpf.c). Twice the room, for the verifier. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, char[2 * FLAK_PATH_MAX]);
} claim_text SEC(".maps");

/* Mixes eight bytes of the string into its hash. */
static long hash_step(u32 index, void *context)
{
	struct name_scratch *out = bpf_map_lookup_elem(&scratch, context);
	u32 at = index * 8;
	struct claim_key *key;
	u64 word;

	if (!out || at >= out->claim.len)
		return 1;
	key = &out->claim;
	word = *(u64 *)&out->bytes[at & (FLAK_PATH_MAX - 8)];
	if (key->len - at < 8)
		word &= (1ULL << (key->len - at) * 8) - 1;
	key->hash[0] = (key->hash[0] ^ word) * 0x9e3779b97f4a7c15ULL;
	key->hash[0] ^= key->hash[0] >> 32;
	key->hash[1] = (key->hash[1] + word) * 0xc2b2ae3d27d4eb4fULL;
	key->hash[1] ^= key->hash[1] >> 29;
	return 0;
}

make_repeatable(hash_step, FLAK_PATH_MAX / 8);

/* Sends a claim that lies in the scratch, under ids of its own; false when it found the ring full. */
static __always_inline bool send_claim(struct name_scratch *out, struct claim_key *key, struct claim_ids *ids,
				       u32 flags)
{
	ids->path_id = next_id(&next_claim_id) | FLAK_CLAIM_BIT;
	ids->file_id = key->found.ino ? next_id(&next_file_id) : 0;
	__builtin_memset(&out->head, 0, sizeof(out->head));
	out->head.path_id = ids->path_id;
	out->head.file_id = ids->file_id;
	out->head.dev = key->found.dev;
	out->head.ino = key->found.ino;
	out->head.base_path_id = key->base_path_id;
	out->head.mode = key->found.mode;
	out->head.file_size = key->found.size;
	out->head.flags = FLAK_NAME_CLAIMED | flags | (key->found.ino ? FLAK_NAME_FROM_STAT : 0);
	return send_name(out, key->len & (FLAK_PATH_MAX - 1));
}

static __always_inline long read_claim(struct name_scratch *out, u64 string, u32 lies_in)
{
	u32 zero = 0;
	char *text;

	if (lies_in == IN_PROGRAM)
		return bpf_probe_read_user_str(out->bytes, FLAK_PATH_MAX, (void *)string);
	if (lies_in == IN_KERNEL)
		return bpf_probe_read_kernel_str(out->bytes, FLAK_PATH_MAX, (void *)string);
	text = bpf_map_lookup_elem(&claim_text, &zero);
	return text ? bpf_probe_read_kernel_str(out->bytes, FLAK_PATH_MAX, text) : 0;
}

/* intern_claim() with words instead of structs. base: the folder's path_id, above it lies_in. device: number, mode. */
u64 intern_claim_found(u64 string, u64 base, u64 ino, u64 size, u64 device)
{
	struct claim_ids ids = {}, *known;
	struct name_scratch *out;
	struct claim_key *key;
	u32 which, flags = 0;
	long len;

	out = scratch_get(&which);
	if (!out)
		return 0;
	len = read_claim(out, string, base >> 32);
	if (len < 1) {
		flags = FLAK_NAME_FAULT;
		len = 1;
	}
	if (len == FLAK_PATH_MAX)
		flags |= FLAK_NAME_TRUNCATED;
	key = &out->claim;
	__builtin_memset(key, 0, sizeof(*key));
	key->hash[0] = key->hash[1] = claim_seed;
	key->len = (len - 1) & (FLAK_PATH_MAX - 1);
	repeat_in_scratch(FLAK_PATH_MAX / 8, hash_step, which);
	key->hash[1] ^= flags;
	key->base_path_id = base;
	if (ino) {
		key->found.ino = ino;
		key->found.size = size;
		key->found.dev = device >> 32;
		key->found.mode = device;
		key->latest_file_id = latest_file_id(key->found.dev, ino);
	}
	known = bpf_map_lookup_elem(&claims, key);
	if (known) {
		ids = *known;
	} else if (send_claim(out, key, &ids, flags)) {
		bpf_map_update_elem(&claims, key, &ids, BPF_ANY);
	} else {
		ids.path_id = 0;
		ids.file_id = 0;
	}
	scratch_put(which);
	return ids.path_id | (u64)ids.file_id << 32;
}
