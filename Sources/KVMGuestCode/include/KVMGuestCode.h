// The code of the guest, assembled from guest.S. Labels of no fixed length are not imported into Swift: these are.
#ifndef PAGEFERRY_KVM_GUEST_CODE_H
#define PAGEFERRY_KVM_GUEST_CODE_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t pageferry_guest_code[], pageferry_guest_code_turn[], pageferry_guest_code_end[];

/// The first instruction. The code runs at any address.
static inline const uint8_t *guest_code(void) { return pageferry_guest_code; }
/// Bytes of the code.
static inline size_t guest_code_size(void) { return (size_t)(pageferry_guest_code_end - pageferry_guest_code); }
/// Where, from the first instruction, a vCPU is at its next pass's first page with the key of the pass before.
static inline size_t guest_code_turn(void) { return (size_t)(pageferry_guest_code_turn - pageferry_guest_code); }

#endif
