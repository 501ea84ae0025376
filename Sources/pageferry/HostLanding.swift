import Guest
import KVMGuest
import Workloads

/// Where a workload of any kind that can live in this process arrives.
struct HostLanding: Landing {
    let builtIn: BuiltInLanding
    let kvm: KVMLanding
    var resolvesInThread = false

    func prepare(_ description: GuestDescription) throws -> PreparedGuest {
        guard description.kind == KVMConfiguration.kind else { return try builtIn.prepare(description) }
        guard !resolvesInThread else {
            throw KVMGuestError("a guest in a virtual machine cannot fetch its own pages; start without --in-thread")
        }
        return try kvm.prepare(description)
    }
}
