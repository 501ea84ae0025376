import Guest
import KVMGuest
import MicroVMGuest
import Workloads

/// Where a workload of any kind that can live in this process arrives.
struct HostLanding: Landing {
    let builtIn: BuiltInLanding
    let kvm: KVMLanding
    var resolvesInThread = false

    func prepare(
        _ description: GuestDescription,
        onMemory: @escaping @Sendable (consuming WaitingMemory) -> Void
    ) throws -> any Workload {
        guard description.kind != MicroVMConfiguration.kind else {
            throw Failure("a microVM arrives where the destination was started with --guest firecracker:API-SOCKET")
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
