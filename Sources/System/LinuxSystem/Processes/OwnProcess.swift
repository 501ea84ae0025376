import CShims
import Glibc
import SystemPackage

/// What this process is to the rest of the host.
package enum OwnProcess {
    /// The most that /proc/PID/oom_score_adj takes.
    private static let highestScore = 1000

    /// Makes the kernel end this process sooner than others when memory runs out (/proc/self/oom_score_adj).
    ///
    /// - Parameter points: added to the present score.
    package static func volunteer(by points: Int) throws(SystemError) {
        let path = "/proc/self/oom_score_adj"
        let present = Int(try ProcessFile.read(path).prefix { !$0.isWhitespace }) ?? 0
        try write("\(min(highestScore, present + points))", to: path)
    }

    /// Sets the name that `top` and `pgrep` show for this process, of which the kernel keeps 15 bytes.
    package static func setName(_ name: String) throws(SystemError) {
        try write(name, to: "/proc/self/comm")
    }

    private static func write(_ text: String, to path: String) throws(SystemError) {
        let bytes = Array(text.utf8)
        try attempt("write \(path)") { () throws(Errno) in
            let file = OwnedDescriptor(try kernel(.open) { shim_open(path, O_WRONLY | O_CLOEXEC) })
            let raw = file.raw
            _ = try kernel(.write) { bytes.withUnsafeBytes { orErrno(Glibc.write(raw, $0.baseAddress, $0.count)) } }
        }
    }
}
