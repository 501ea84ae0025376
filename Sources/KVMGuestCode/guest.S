// What each vCPU executes, in protected mode without paging. The vCPU owns a slice of whole pages. In each pass it checks
// that every page holds what the last pass wrote, at both of its ends, and writes the next.
//
//   ebx  the vCPU's block: START, END, PRIORITY, MARK and room for itself
//   edi  the page it is at
//   ebp  the key of this pass. A page that this pass has written holds its own address plus the key; one that it has
//        not, holds STEP less
//
// The key is kept in an SSE register, in an MSR and, its highest byte, in the priority register of the local APIC too.
// Every 256 pages all of them must agree. A byte on the serial port says then that all is well; `!`, that it is not.

        .intel_syntax noprefix
        .section .rodata
        .globl  pageferry_guest_code, pageferry_guest_code_turn, pageferry_guest_code_end
        .code32

        .equ    STEP, 0x9e3779b1
        .equ    LAST, 4092
        .equ    SERIAL, 0x3f8
        .equ    MSR, 0x175              // IA32_SYSENTER_ESP, which this guest has no other use for

        .equ    START, 0                // address of the slice's first page
        .equ    END, 4                  // address behind its last
        .equ    PRIORITY, 8             // address of the local APIC's priority register, or of a word where there is none
        .equ    MARK, 12                // what it writes to the serial port
        .equ    KEY, 16                 // room for an SSE register
        .equ    KEPT, 32                // and for one more

pageferry_guest_code:
pass:   mov     edi, [ebx + START]
pageferry_guest_code_turn:              // here, and nowhere else, edi and ebp are of two passes
        add     ebp, STEP
        mov     [ebx + KEY], ebp
        movdqu  xmm0, [ebx + KEY]
        mov     ecx, MSR
        mov     eax, ebp
        xor     edx, edx
        wrmsr
        shr     eax, 24
        mov     edx, [ebx + PRIORITY]
        mov     [edx], eax

page:   lea     eax, [edi + ebp - STEP]
        cmp     [edi], eax
        jne     bad
        cmp     [edi + LAST], eax
        jne     bad
        add     eax, STEP
        mov     [edi], eax
        mov     [edi + LAST], eax
        add     edi, 4096
        test    edi, 0xff000
        jz      mark
next:   cmp     edi, [ebx + END]
        jb      page
        mov     al, 10                  // a line for each pass
        mov     edx, SERIAL
        out     dx, al
        jmp     pass

mark:   movdqu  [ebx + KEPT], xmm0
        cmp     [ebx + KEPT], ebp
        jne     bad
        mov     ecx, MSR
        rdmsr
        cmp     eax, ebp
        jne     bad
        mov     edx, [ebx + PRIORITY]
        mov     ecx, [edx]
        shr     eax, 24
        cmp     ecx, eax
        jne     bad
        mov     al, [ebx + MARK]
        mov     edx, SERIAL
        out     dx, al
        jmp     next

bad:    mov     al, 33                  // an exclamation mark
        mov     edx, SERIAL
        out     dx, al
halt:   hlt
        jmp     halt
pageferry_guest_code_end:

        .section .note.GNU-stack, "", @progbits
