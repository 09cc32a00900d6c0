// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The object: one file per concern, compiled as one. (libbpf 1.1's linker cannot join objects that share a kernel
 * function such as bpf_rdonly_cast; one translation unit needs no linker.)
 */
#include "core.bpf.c"
#include "folded.bpf.c"
#include "targets.bpf.c"
#include "faults.bpf.c" /* before the others: what a kernel refuses is then refused before much is verified */
#include "names.bpf.c"
#include "claims.bpf.c"
#include "requests.bpf.c"
#include "calls.bpf.c"
#include "descriptors.bpf.c"
#include "memory.bpf.c"
#include "metadata.bpf.c"
#include "copies.bpf.c"
#include "io_uring.bpf.c"
#include "aio.bpf.c"
#include "lifecycle.bpf.c"
#include "attach.bpf.c"
#include "pending.bpf.c"
