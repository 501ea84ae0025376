// The program that each vCPU executes, in protected mode without paging. A vCPU owns a slice of whole pages. In each
// pass, the vCPU checks that the first and the last word of every page hold what the previous pass wrote, and writes
// new words.
//
//   ebx  address of the vCPU's block: START, END, PRIORITY, MARK and room for two SSE registers
//   edi  address of the current page
//   ebp  key of this pass. A page that this pass has written holds its own address plus the key; any other page holds
//        STEP less
//
// An SSE register and an MSR hold the key too, and the local APIC's priority register holds its highest byte. Every 256
// pages the vCPU checks that all of them agree, and then writes its MARK to the serial port. If any check fails, it
// writes `!` and halts.

        .intel_syntax noprefix
        .section .rodata
        .globl  pageferry_guest_code, pageferry_guest_code_turn, pageferry_guest_code_end
        .code32

        .equ    STEP, 0x9e3779b1
        .equ    LAST, 4092
        .equ    SERIAL, 0x3f8
        .equ    MSR, 0x175              // IA32_SYSENTER_ESP, which this guest has no other use for

        .equ    START, 0                // address of the slice's first page
        .equ    END, 4                  // address behind the slice's last page
        .equ    PRIORITY, 8             // address of the local APIC's priority register, or of a spare word
        .equ    MARK, 12                // byte that reports success on the serial port
        .equ    KEY, 16                 // room for an SSE register, to load the key from
        .equ    KEPT, 32                // room for an SSE register, to store it to

pageferry_guest_code:
pass:   mov     edi, [ebx + START]
pageferry_guest_code_turn:              // only at this instruction edi and ebp belong to different passes
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
        mov     al, 10                  // a newline after each pass
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
