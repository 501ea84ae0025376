import CShims
import Glibc
import SystemPackage

/// Recognizing a process in another process's records.
extension PeerProcess {
    /// What tells a process from every other that has or had its number: the boot, and the time of its start.
    package struct Birth: Codable, Hashable, Sendable {
        /// The process's number.
        package let id: Int32
        /// When the process was started, in clock ticks since the boot (field 22 of /proc/PID/stat).
        package let started: UInt64
        /// The boot in which the process was started (/proc/sys/kernel/random/boot_id).
        package let boot: String

        /// Reads the birth of a running process; nil if it has exited or is not visible here.
        package init?(of id: Int32) {
            guard let boot = ProcessFile.text("/proc/sys/kernel/random/boot_id"),
                let stat = ProcessFile.text("/proc/\(id)/stat"),
                // The second field, the program's name in parentheses, may hold anything.
                let name = stat.lastIndex(of: ")")
            else { return nil }
            let fields = stat[stat.index(after: name)...].split(separator: " ")
            guard fields.count > 19, let started = UInt64(fields[19]) else { return nil }
            self.id = id
            self.started = started
            self.boot = String(boot.prefix { !$0.isWhitespace })
        }

        /// Reads the birth of this process; nil if /proc is not mounted.
        package static var own: Birth? { Birth(of: getpid()) }

        /// The birth of another process of the same boot.
        package func sibling(_ id: Int32, started: UInt64) -> Birth { Birth(id: id, started: started, boot: boot) }

        private init(id: Int32, started: UInt64, boot: String) {
            self.id = id
            self.started = started
            self.boot = boot
        }
    }

    /// The birth of this process; nil if it has exited and was waited for, or is not visible here.
    package var birth: Birth? {
        let birth = Birth(of: id)
        // Until the process was waited for, no other one has its number.
        return wasWaitedFor ? nil : birth
    }

    /// Finds the process of a record.
    ///
    /// - Returns: nil if that process has exited, even if another process has its number now.
    /// - Throws: a ``SystemError`` if the process cannot be watched.
    package static func find(_ birth: Birth) throws(SystemError) -> PeerProcess? {
        let descriptor: OwnedDescriptor
        do throws(Errno) {
            descriptor = OwnedDescriptor(try kernel(.pidfdOpen) { shim_pidfd_open(birth.id) })
        } catch .noSuchProcess, .invalidArgument {
            return nil
        } catch {
            throw SystemError("watch process \(birth.id)", error)
        }
        // The owner of the folder is the process's effective user.
        var folder = stat()
        let user = lstat("/proc/\(birth.id)", &folder) == 0 ? folder.st_uid : nil
        let process = PeerProcess(adopting: descriptor, id: birth.id, user: user)
        // Read once the pidfd is open: the number cannot have passed to a later process in between.
        guard Birth(of: birth.id) == birth, !process.hasEnded else { return nil }
        return process
    }
}
