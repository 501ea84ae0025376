// A guest for Firecracker that knows what its memory must hold: a 64-bit ELF, entered in long mode with the first GiB
// mapped one to one and the address of Linux's boot_params in RSI. The guest uses the pages below 2 MiB itself and
// checks the pages above.
//   gcc -nostdlib -static -no-pie -Wl,-Ttext=0x100000,--build-id=none firecracker-guest.S -o guest
//
// The first word of page n in generation g is n * MULTIPLIER + g, and the last word is the complement of the first.
// Pages with bits 3 and 4 of n set are never written, and both words are zero, as in pages that the balloon has taken.
// The guest prints these marks, with numbers as 16 hexadecimal digits:
//   filled             all pages have generation 1
//   pass G             all pages had generation G, and have G + 1 now
//   set G              the working set, which is the first 1/16 of the order of touches, had generation G
//   idle
//   inflated N         the balloon, which must be the first virtio device, has N pages from INFLATED_FIRST on
//   bad N WORD         page N holds that word; the guest stands still
// A byte on the serial port is a command, which the guest carries out after the present one:
//   r  one pass after another (at first)                  s  nothing: idle       p  one pass       w  the working set
//   i  give the balloon 256 pages                         a  touch in order (at first)    d  touch in a random-looking order
#define SERIAL 0x3f8
#define MULTIPLIER 0x9E3779B97F4A7C15
#define FIRST_PAGE 512
#define INFLATED_FIRST 1024
#define INFLATE_COUNT 256
// The address of Firecracker's first virtio device, which the kernel's command line also gives.
#define BALLOON 0xd0000000
// The guest's own pages, zero at first: a page directory, the rings of two queues, numbers of pages.
#define DIRECTORY 0x110000
#define QUEUE(n, part) (0x111000 + (n) * 0x3000 + (part) * 0x1000)
#define NUMBERS 0x117000
#define QUEUE_SIZE 16

// RBX the command; RBP the order's factor; R8 whether a walk checks (1) and writes (2); R9 the generation;
// R10 MULTIPLIER; R12 the mask of page numbers; R13 the end of the balloon's pages; R14 boot_params' map; R15 all pages.
        .globl _start
_start:
        cld
        lea     stack_end(%rip), %rsp
        movzbl  0x1e8(%rsi), %ecx               // e820 entries
        lea     0x2d0(%rsi), %r14
        xor     %r15, %r15
1:      mov     (%r14), %rax                    // address, bytes, u32 type; the last one of RAM ends the memory
        add     8(%r14), %rax
        cmpl    $1, 16(%r14)
        cmove   %rax, %r15
        add     $20, %r14
        loop    1b
        shr     $12, %r15
        lea     -1(%r15), %rcx
        bsr     %rcx, %rcx
        mov     $2, %r12
        shl     %cl, %r12
        dec     %r12
        mov     $1, %ebp
        mov     $INFLATED_FIRST, %r13
        movabs  $MULTIPLIER, %r10
        mov     $1, %r9
        mov     $2, %r8
        call    walk_all
        lea     filled(%rip), %rsi
        call    print
        call    newline
        mov     $'r', %bl

turn:   mov     $SERIAL + 5, %dx
        in      %dx, %al
        test    $1, %al                         // a byte has arrived
        jz      1f
        mov     $SERIAL, %dx
        in      %dx, %al
        cmp     $'a', %al
        je      ascend
        cmp     $'d', %al
        je      disperse
        mov     %al, %bl
        cmp     $'s', %al
        je      rest
1:      cmp     $'r', %bl
        je      pass
        cmp     $'p', %bl
        je      pass
        cmp     $'w', %bl
        je      set
        cmp     $'i', %bl
        je      inflate
        pause
        jmp     turn

ascend: mov     $1, %ebp
        jmp     turn
disperse:                                       // 4 k + 1 with an odd addend reaches all numbers modulo a power of two
        mov     $0x5851F42D, %ebp
        jmp     turn
rest:   lea     idle(%rip), %rsi
        call    print
        call    newline
        jmp     turn

pass:   mov     $3, %r8
        call    walk_all
        lea     passed(%rip), %rsi
        call    print
        mov     %r9, %rdi
        call    number
        call    newline
        inc     %r9
        cmp     $'r', %bl
        je      turn
        xor     %ebx, %ebx
        jmp     turn

set:    mov     $1, %r8
        mov     %r12, %rcx
        shr     $4, %rcx
        inc     %rcx
        call    walk
        lea     checked(%rip), %rsi
        call    print
        mov     %r9, %rdi
        call    number
        call    newline
        xor     %ebx, %ebx
        jmp     turn

// Touches the pages of the first RCX steps of the order.
walk_all:
        lea     1(%r12), %rcx
walk:   mov     $FIRST_PAGE, %eax
1:      cmp     $FIRST_PAGE, %rax
        jb      4f
        cmp     %r15, %rax
        jae     4f
        mov     %rax, %rdi
        shl     $12, %rdi
        mov     %eax, %edx
        and     $0x18, %edx
        cmp     $0x18, %edx
        je      5f
        cmp     $INFLATED_FIRST, %rax
        jb      2f
        cmp     %r13, %rax
        jb      5f
2:      mov     %rax, %rdx
        imul    %r10, %rdx
        add     %r9, %rdx
        test    $1, %r8
        jz      3f
        mov     (%rdi), %rsi
        cmp     %rsi, %rdx
        jne     bad
        mov     4088(%rdi), %rsi
        not     %rsi
        cmp     %rsi, %rdx
        jne     bad
        inc     %rdx
3:      test    $2, %r8
        jz      4f
        mov     %rdx, (%rdi)
        not     %rdx
        mov     %rdx, 4088(%rdi)
4:      imul    %rbp, %rax
        add     $1, %rax
        and     %r12, %rax
        loop    1b
        ret
5:      test    $1, %r8
        jz      4b
        mov     (%rdi), %rsi
        or      4088(%rdi), %rsi
        jz      4b

bad:    push    %rsi
        push    %rax
        lea     wrong(%rip), %rsi
        call    print
        pop     %rdi
        call    number
        mov     $' ', %al
        call    put
        pop     %rdi
        call    number
        call    newline
        cli
1:      hlt
        jmp     1b

// Sends the next page numbers to the balloon's first queue. Firecracker raises the interrupt when the pages are gone.
inflate:
        mov     $BALLOON, %r11d
        cmp     $INFLATED_FIRST, %r13
        jne     2f
        mov     %cr3, %rax                      // maps 2 MiB at BALLOON: the fourth GiB's directory
        mov     (%rax), %rax
        and     $-4096, %rax
        movq    $DIRECTORY + 3, 24(%rax)
        mov     $BALLOON + 0x83, %eax
        mov     %rax, DIRECTORY + ((BALLOON >> 21) & 511) * 8
        lea     setup(%rip), %rsi
        mov     $(setup_end - setup) / 8, %ecx
1:      lodsl
        mov     %eax, %edx
        lodsl
        mov     %eax, (%r11, %rdx)
        loop    1b
2:      mov     $NUMBERS, %edi
        mov     $INFLATE_COUNT, %ecx
3:      mov     %r13d, %eax
        stosl
        inc     %r13
        loop    3b
        movq    $NUMBERS, QUEUE(0, 0)
        movl    $INFLATE_COUNT * 4, QUEUE(0, 0) + 8
        incw    QUEUE(0, 1) + 2                 // every entry of the ring names descriptor 0
        movl    $0, 0x50(%r11)
4:      pause
        testl   $1, 0x60(%r11)
        jz      4b
        movl    $1, 0x64(%r11)
        lea     inflated(%rip), %rsi
        call    print
        lea     -INFLATED_FIRST(%r13), %rdi
        call    number
        call    newline
        xor     %ebx, %ebx
        jmp     turn

print:  lodsb
        test    %al, %al
        jz      1f
        call    put
        jmp     print
1:      ret
newline:
        mov     $'\n', %al
put:    mov     $SERIAL, %dx
        out     %al, %dx
        ret
number: mov     $16, %ecx
1:      rol     $4, %rdi
        mov     %edi, %eax
        and     $15, %eax
        cmp     $10, %al
        jb      2f
        add     $'a' - '0' - 10, %al
2:      add     $'0', %al
        call    put
        loop    1b
        ret

filled: .asciz  "filled"
idle:   .asciz  "idle"
passed: .asciz  "pass "
checked:
        .asciz  "set "
wrong:  .asciz  "bad "
inflated:
        .asciz  "inflated "

// Pairs of a device register and its value: a driver for VERSION_1 that uses the inflate and deflate queues.
        .balign 4
#define QUEUE_SETUP(n) 0x30, n, 0x38, QUEUE_SIZE, 0x80, QUEUE(n, 0), 0x84, 0, 0x90, QUEUE(n, 1), 0x94, 0, \
    0xa0, QUEUE(n, 2), 0xa4, 0, 0x44, 1
setup:  .long   0x70, 0, 0x70, 1, 0x70, 3, 0x24, 1, 0x20, 1, 0x24, 0, 0x20, 0, 0x70, 11
        .long   QUEUE_SETUP(0)
        .long   QUEUE_SETUP(1)
        .long   0x70, 15
setup_end:
        .balign 16
        .skip   1024
stack_end:
