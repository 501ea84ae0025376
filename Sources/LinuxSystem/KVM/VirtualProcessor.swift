import CShims
import Glibc
import Synchronization
import SystemPackage

/// A vCPU of a virtual machine: one thread at a time runs it, and any thread interrupts it.
public final class VirtualProcessor: Sendable {
    /// Why the guest's code stands still.
    public enum Exit: Hashable, Sendable {
        /// It has written a byte to a port.
        case output(port: UInt16, byte: UInt8)
        /// It can go on no more, with the reason.
        case broken(reason: String)
    }

    /// Which one it is, from 0.
    public let index: Int
    let descriptor: OwnedDescriptor
    let floatingPointBytes: Int
    let modelRegisters: [UInt32]
    /// A struct kvm_run, and the data of I/O behind it.
    private let page: Mapping
    /// The thread that runs it, which the signal is for.
    private let runner = Mutex<pthread_t?>(nil)

    init(
        index: Int,
        page: consuming Mapping,
        descriptor: consuming OwnedDescriptor,
        floatingPointBytes: Int,
        modelRegisters: [UInt32]
    ) {
        self.index = index
        self.page = page
        self.descriptor = descriptor
        self.floatingPointBytes = floatingPointBytes
        self.modelRegisters = modelRegisters
    }

    private var shared: UnsafeMutablePointer<kvm_run> { page.base.assumingMemoryBound(to: kvm_run.self) }

    /// Read by the kernel as it enters the guest, whoever wrote it: relaxed, since the signal that follows orders it.
    private var immediateExit: UnsafeMutablePointer<Atomic<UInt8>> {
        // offsetof(struct kvm_run, immediate_exit), which the kernel's interface fixes.
        (page.base + 1).assumingMemoryBound(to: Atomic<UInt8>.self)
    }

    /// Forgets an interruption: the next ``run(_:)`` goes on. It does not run now.
    public func prepare() {
        immediateExit.pointee.store(0, ordering: .relaxed)
    }

    /// Ends ``run(_:)`` soon, or the next one at once, at whatever moment this is called.
    public func interrupt() {
        immediateExit.pointee.store(1, ordering: .relaxed)
        // Before the thread has entered the guest it sees the flag; in the guest, the signal lets it out.
        runner.withLock { thread in
            guard let thread else { return }
            let result = pthread_kill(thread, VirtualProcessor.signal)
            precondition(result == 0, "a thread that runs a vCPU takes no signal: \(result)")
        }
    }

    /// Runs the guest on the calling thread until it is interrupted.
    ///
    /// All that the guest has begun is then done: its state can be saved.
    ///
    /// - Parameter take: is given each exit. The guest goes on when it returns, also after one that says it is broken,
    ///   unless ``interrupt()`` was called.
    /// - Throws: when the kernel runs it no more.
    public func run(_ take: (Exit) -> Void) throws(SystemError) {
        VirtualProcessor.takeSignal()
        runner.withLock { $0 = pthread_self() }
        defer { runner.withLock { $0 = nil } }
        let raw = descriptor.raw
        while true {
            let interrupted: CInt = 1
            let outcome = try attempt(
                "run vCPU \(index)",
                advice: "no memory is where the guest works, or the kernel failed"
            ) { () throws(Errno) in
                try kernel(.kvmRun) {
                    let result = shim_ioctl(raw, shim_kvm_run, 0)
                    // Neither is a bug of ours: the signal, and memory that could not be had.
                    return result == -EINTR ? interrupted : result == -EFAULT ? -EIO : result
                }
            }
            if outcome == interrupted {
                // What the last exit left to do the kernel has done as it was entered.
                if immediateExit.pointee.load(ordering: .relaxed) != 0 { return }
            } else {
                take(exit)
            }
        }
    }

    private var exit: Exit {
        let run = shared.pointee
        switch CInt(run.exit_reason) {
        case KVM_EXIT_IO:
            let io = run.io
            guard CInt(io.direction) == KVM_EXIT_IO_OUT, io.size == 1, io.count == 1 else {
                return .broken(reason: "it does I/O at port 0x\(String(io.port, radix: 16)) that nothing here serves")
            }
            let byte = page.base.load(fromByteOffset: Int(io.data_offset), as: UInt8.self)
            return .output(port: io.port, byte: byte)
        case KVM_EXIT_MMIO:
            let address = String(run.mmio.phys_addr, radix: 16)
            return .broken(reason: "it reads or writes at 0x\(address), where it has no memory")
        case KVM_EXIT_HLT: return .broken(reason: "it has halted")
        case KVM_EXIT_SHUTDOWN: return .broken(reason: "it has shut down after a triple fault")
        case KVM_EXIT_FAIL_ENTRY:
            let reason = String(run.fail_entry.hardware_entry_failure_reason, radix: 16)
            return .broken(reason: "the processor does not enter it: reason 0x\(reason)")
        case KVM_EXIT_INTERNAL_ERROR:
            return .broken(reason: "KVM cannot run what it executes: internal error \(run.internal.suberror)")
        case let reason: return .broken(reason: "KVM leaves it for a reason that is not known here: \(reason)")
        }
    }

    /// What interrupts the system call in which a thread runs a guest; glibc and the Swift runtime use none of these.
    private static let signal: CInt = {
        let signal = __libc_current_sigrtmin()
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        let result = sigaction(signal, &action, nil)
        precondition(result == 0, "a real-time signal can always be handled")
        return signal
    }()

    /// Lets the calling thread be interrupted: a thread begins with what its maker blocks.
    private static func takeSignal() {
        var set = sigset_t()
        sigemptyset(&set)
        sigaddset(&set, signal)
        let result = pthread_sigmask(SIG_UNBLOCK, &set, nil)
        precondition(result == 0, "a signal can always be taken")
    }
}
