import Guest
import KVMGuest
import MicroVMGuest
import Workloads

/// The landing of every kind of workload that can run in this process.
struct HostLanding: Landing {
    let builtIn: BuiltInLanding
    let kvm: KVMLanding
    var resolvesInThread = false

    func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        guard description.kind != MicroVMConfiguration.kind else {
            throw Failure("the workload is a microVM; start the destination with --guest firecracker:API-SOCKET")
        }
        guard description.kind == KVMConfiguration.kind else {
            return try builtIn.prepare(description, onMemory: onMemory)
        }
        guard !resolvesInThread else {
            throw KVMGuestError("a guest in a virtual machine cannot fetch its own pages; start without --in-thread")
        }
        return try kvm.prepare(description, onMemory: onMemory)
    }
}
