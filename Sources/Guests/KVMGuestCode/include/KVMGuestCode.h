// The guest's code, assembled from guest.S. Swift does not import arrays of unknown length, so functions return them.
#ifndef PAGEFERRY_KVM_GUEST_CODE_H
#define PAGEFERRY_KVM_GUEST_CODE_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t pageferry_guest_code[], pageferry_guest_code_turn[], pageferry_guest_code_end[];

/// Address of the first instruction. The code is position-independent.
static inline const uint8_t *guest_code(void) { return pageferry_guest_code; }
/// Size of the code, in bytes.
static inline size_t guest_code_size(void) { return (size_t)(pageferry_guest_code_end - pageferry_guest_code); }
/// Offset of the instruction at which edi has the next pass's first page while ebp has the previous pass's key.
static inline size_t guest_code_turn(void) { return (size_t)(pageferry_guest_code_turn - pageferry_guest_code); }

#endif
