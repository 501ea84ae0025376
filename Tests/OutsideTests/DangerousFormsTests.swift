import Foundation
import Testing

/// Checks the source code that parses foreign numbers against a list of its forms that could trap.
@Suite("What parses input")
struct DangerousFormsTests {
    /// Patterns of files that make numbers from foreign bytes or text.
    private static let marks =
        #"JSONDecoder|JSONReader|WireReader|StateReader\(|loadUnaligned|ProcessFile\.(text|read)\(|init\(from decoder|Untrusted|"#
        + #"text bytes: \[UInt8\]|RunLeaseStore \{"#

    /// Forms that trap on a number out of range.
    ///
    /// The forms are plain arithmetic, conversions that are neither exact nor clamping, forced unwrapping, and
    /// preconditions. An index and a range can trap too, but they are made by such a form.
    private static let forms = [
        #"\b(U?Int(8|16|32|64|128)?|CInt|off_t)\((?!exactly|clamping|truncatingIfNeeded|bitPattern|littleEndian|bigEndian|\)|\.|"|ascii)"#,
        #"(?<=[\w\)\]]) [+\-*] (?=[\w\(])|(?<![&])[+\-*]=(?!=)"#,
        #"[\w\)\]]!(?![=\w])(?!\))|\btry!|\bas!"#,
        #"\b(precondition|preconditionFailure|fatalError)\("#,
    ]

    /// The largest number of lines with such a form in a file, and why they cannot trap.
    ///
    /// A further line must use ``Untrusted``, or be reviewed and counted here with its reason.
    private static let known: [String: (lines: Int, reason: String)] = [
        "Guests/Attachments/AttachedProcess.swift": (
            18,
            "lists; widened fields of 32 bits, behind their bound; sizes behind the room that is left; limits of our own"
        ),
        "Guests/Attachments/FirecrackerHandOff.swift": (
            10, "behind the checks of size and place in the same loop; counts of this process's memory; times"
        ),
        "Guests/Attachments/HandOff.swift": (
            17, "fields of 16 and 32 bits, and addresses behind the check of their sum"
        ),
        "Control/Web/ActionPath.swift": (1, "a conversion of text, which gives nil"),
        "Control/Controller/Agent/Agent+QueryMigrate.swift": (5, "counts of this process"),
        "Guests/FaultHandler/GuestRecord.swift": (2, "conversions of text, which give nil; constants"),
        "Guests/FaultHandler/GuestTask.swift": (
            9,
            "behind isSound, which a task passes before anything is asked of it; of a hand-off that was checked; or of "
                + "Untrusted"
        ),
        "Guests/Firecracker/FirecrackerAPI.swift": (1, "what is encoded is this process's"),
        "Guests/Guest/StateBytes.swift": (1, "constants"),
        "Guests/KVMGuest/Devices/GuestClock.swift": (
            1, "constants; counts of nextCount, below 2^62; or of this process"
        ),
        "Guests/KVMGuest/Devices/ModelRegistersDevice.swift": (
            1,
            "constants; counts of nextCount, below 2^62; or of this process"
        ),
        "Guests/KVMGuest/Devices/SerialPort.swift": (
            5, "constants; counts of nextCount, below 2^62; or of this process"
        ),
        "Guests/KVMGuest/KVMConfiguration.swift": (
            2, "behind the bounds of validate; what is encoded is this process's"
        ),
        "System/LinuxSystem/Files/Directory.swift": (4, "lengths that the kernel gives"),
        "System/LinuxSystem/Memory/HugePagePool.swift": (4, "counts below 2^40"),
        "System/LinuxSystem/Memory/Userfaultfd+Adoption.swift": (
            3, "an inode number that is converted to its own width; a conversion of text, which gives nil"
        ),
        "System/LinuxSystem/Processes/MemoryGroup.swift": (
            6, "places in a list; sizes that are clamped; text; a conversion of text, which gives nil"
        ),
        "System/LinuxSystem/Processes/OwnProcess.swift": (1, "a conversion of text, which gives nil"),
        "System/LinuxSystem/Processes/PeerProcess+Birth.swift": (1, "a conversion of text, which gives nil"),
        "System/LinuxSystem/Processes/ProcessMappings.swift": (
            17,
            "addresses inside of the piece and the range that hold them; conversions of text, which give nil; two sizes "
                + "that are clamped"
        ),
        "System/LinuxSystem/Sockets/PeerOrigin.swift": (2, "fields of 32 bits that are widened"),
        "System/LinuxSystem/Processes/ProcessLock.swift": (1, "a conversion of text, which gives nil"),
        "System/LinuxSystem/Sockets/StreamSocket+Descriptors.swift": (
            11,
            "counts that the kernel gives, of at most 17 descriptors; a conversion of text, which gives nil; lists"
        ),
        "Guests/MicroVMGuest/MicroVMConfiguration.swift": (2, "lists; what is encoded is this process's"),
        "System/Outside/Untrusted.swift": (4, "the operators themselves"),
        "System/LinuxSystem/Threads/RunningThread.swift": (1, "a conversion of text, which gives nil"),
        "Values/PageProtocol/DeviceEntry.swift": (
            6,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/FileProof.swift": (
            8, "fields that are widened, or behind the bounds of require; a proof of this process, which has times"
        ),
        "Values/PageProtocol/GuestAnnouncement.swift": (
            8,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/Hello.swift": (
            11,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/Join.swift": (
            5, "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/LaneFrame+Wire.swift": (
            4,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/ReceivedPages.swift": (
            1,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/RegionShape.swift": (
            7,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/SnapshotIdentity.swift": (
            7, "constants; fields that are widened, or behind the bounds of require; a proof of this process or of init"
        ),
        "Values/PageProtocol/SnapshotSlice.swift": (
            9,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Values/PageProtocol/StatePatch+Make.swift": (
            15, "places in states of this process's own, below 1 GiB"
        ),
        "Values/PageProtocol/StatePatch.swift": (
            9, "places in states below 1 GiB that are held in memory; or behind the checks before"
        ),
        "Values/PageProtocol/WireReader.swift": (
            11,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "Control/QMP/ClientSession.swift": (1, "places in a text that is held in memory; four hexadecimal digits"),
        "Control/QMP/JSONReader.swift": (18, "places in a text that is held in memory; four hexadecimal digits"),
        "Control/QMP/MessageSplitter.swift": (2, "places in a text that is held in memory; four hexadecimal digits"),
        "Control/RunLease/FileRunLeaseStore.swift": (
            4,
            "an epoch of a record, which is at least 1; conversions of text, which give nil; constants"
        ),
        "Control/RunLease/LeaseRecord.swift": (
            4,
            "preconditions of what the guard before has read, or of a record before; conversions of text, which give nil"
        ),
        "Control/RunLease/RunLeaseStore.swift": (1, "an epoch above 1"),
        "Values/Telemetry/Report.swift": (1, "of Untrusted"),
        "Values/Telemetry/Report+Reading.swift": (2, "a constant; of Untrusted"),
        "Values/WorkingSet/WorkingSet+Record.swift": (
            10, "numbers of 32 bits that are widened, or behind the check before"
        ),
        "Guests/Workloads/DeviceSpecification.swift": (1, "a conversion of text, which gives nil"),
        "Guests/Workloads/Devices/ClockDevice.swift": (
            3,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Guests/Workloads/Devices/ConsoleDevice.swift": (
            4,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Guests/Workloads/Devices/DiskDevice.swift": (
            1,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Guests/Workloads/Devices/HookDevice.swift": (4, "seconds of this process's own, below 2^32"),
        "Guests/Workloads/Devices/LedgerDevice.swift": (
            4,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Guests/Workloads/Devices/ProcessorDevice.swift": (
            4,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Guests/Workloads/RandomStream.swift": (7, "sizes behind the bounds of validate; or of this process's memory"),
        "Guests/Workloads/TestDevices/MemoryReadingDevice.swift": (2, "pages of this process's memory"),
        "Guests/Workloads/Witness.swift": (5, "sizes behind the bounds of validate; or of this process's memory"),
        "Guests/Workloads/WorkloadConfiguration.swift": (
            11,
            "sizes behind the bounds of validate; or of this process's memory"
        ),
        "pageferry/Children/ChildAgent.swift": (3, "lists; conversions of text, which give nil; or of Untrusted"),
        "pageferry/Output/TopSource.swift": (3, "lists and texts; a difference of fractions"),
        "pageferry/Commands/ProbeCommand.swift": (6, "lists; conversions of text, which give nil; or of Untrusted"),
    ]

    private static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources")

    private func count(_ pattern: String, in text: String) throws -> Int {
        let expression = try NSRegularExpression(pattern: pattern)
        return expression.numberOfMatches(in: text, range: NSRange(text.startIndex..., in: text))
    }

    /// The lines of code with a dangerous form, without comments and string literals.
    private func dangerous(_ text: String) throws -> [String] {
        let strings = try NSRegularExpression(pattern: #""(?:\\.|[^"\\])*""#)
        return try text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.filter { line in
            guard !line.hasPrefix("//") else { return false }
            let range = NSRange(line.startIndex..., in: line)
            let code = strings.stringByReplacingMatches(in: line, range: range, withTemplate: "\"\"")
                .components(separatedBy: " // ")[0]
            return try DangerousFormsTests.forms.contains { try count($0, in: code) > 0 }
        }
    }

    private var files: [String] {
        let all =
            FileManager.default.enumerator(atPath: DangerousFormsTests.sources.path)?.allObjects as? [String] ?? []
        return all.filter { $0.hasSuffix(".swift") }.sorted()
    }

    @Test("has only known forms that trap on a number out of range")
    func forms() throws {
        var parsers: Set<String> = []
        for file in files {
            let text = try String(contentsOf: DangerousFormsTests.sources.appendingPathComponent(file), encoding: .utf8)
            guard try count(DangerousFormsTests.marks, in: text) > 0 else { continue }
            parsers.insert(file)
            let lines = try dangerous(text)
            let known = DangerousFormsTests.known[file]?.lines ?? 0
            #expect(
                lines.count <= known,
                "\(file) has \(lines.count) lines that may trap, and \(known) are known:\n\(lines.joined(separator: "\n"))"
            )
        }
        // If fewer files were found, the paths are wrong and nothing was checked.
        #expect(parsers.count > 40)
        #expect(Set(DangerousFormsTests.known.keys).isSubset(of: parsers))
    }

    @Test("prints only through Terminal, which escapes text")
    func printing() throws {
        for file in files where file != "pageferry/Output/Terminal.swift" {
            let text = try String(contentsOf: DangerousFormsTests.sources.appendingPathComponent(file), encoding: .utf8)
            let pattern = #"(?<![\w.])print\(|FileHandle\.standard(Error|Output)|fputs\(|(?<!/dev/)\bstd(err|out)\b"#
            for line in text.split(separator: "\n") where !line.trimmingCharacters(in: .whitespaces).hasPrefix("//") {
                #expect(try count(pattern, in: String(line)) == 0, "\(file): \(line)")
            }
        }
    }
}
