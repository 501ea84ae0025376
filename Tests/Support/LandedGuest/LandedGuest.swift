package import Guest
package import LinuxSystem
import Synchronization

/// A guest that has landed, with its waiting memory.
package struct LandedGuest: ~Copyable {
    /// The guest.
    package let workload: any Workload
    /// The guest's memory.
    package let memory: WaitingMemory

    /// Returns the userfaultfd, by which the caller serves the faults.
    package consuming func takeUserfaultfd() -> Userfaultfd {
        memory.takeUserfaultfd()
    }
}

/// The error of a landing that has announced no memory, or more than one.
package struct MemoryNotTold: Error {}

extension Landing {
    /// Lands a guest whose memory is announced at once.
    package func land(_ description: GuestDescription) throws -> LandedGuest {
        let told = Mutex<[Handover<WaitingMemory>]>([])
        let workload = try prepare(description) { memory in
            let memory = Handover(memory)
            told.withLock { $0.append(memory) }
        }
        let all = told.withLock(\.self)
        guard all.count == 1, let memory = all[0].take() else { throw MemoryNotTold() }
        return LandedGuest(workload: workload, memory: memory)
    }
}
