import Foundation
import Testing

/// The source code of what reads numbers from outside, held to a list of the forms in it that would trap.
@Suite("What parses input")
struct DangerousFormsTests {
    /// What a file that makes numbers out of what others wrote has in it.
    private static let marks =
        #"JSONDecoder|JSONReader|WireReader|StateReader\(|loadUnaligned|ProcessFile\.text|init\(from decoder|Untrusted"#

    /// Forms that trap on a number out of range: plain arithmetic, conversions that are not exact or clamping, forced
    /// unwrapping, and preconditions. Beside them, an index and a range trap too: what makes one is such a form.
    private static let forms = [
        #"\b(U?Int(8|16|32|64|128)?|CInt|off_t)\((?!exactly|clamping|truncatingIfNeeded|bitPattern|littleEndian|bigEndian|\)|\.|"|ascii)"#,
        #"(?<=[\w\)\]]) [+\-*] (?=[\w\(])|(?<![&])[+\-*]=(?!=)"#,
        #"[\w\)\]]!(?![=\w])(?!\))|\btry!|\bas!"#,
        #"\b(precondition|preconditionFailure|fatalError)\("#,
    ]

    /// Why the lines with such a form in a file cannot trap, and how many there are at most. A line more is either written
    /// with ``Untrusted``, or is looked at, and counted here with its reason.
    private static let known: [String: (lines: Int, reason: String)] = [
        "Attachments/FirecrackerHandOff.swift": (7, "behind the checks of size and place in the same loop"),
        "Attachments/HandOff.swift": (15, "fields of 16 and 32 bits, and addresses behind the check of their sum"),
        "Controller/Agent+QueryMigrate.swift": (3, "counts of this process"),
        "FaultHandler/GuestTask.swift": (
            5,
            "behind isSound, which a task passes before anything is asked of it; or of Untrusted"
        ),
        "Firecracker/FirecrackerAPI.swift": (1, "what is encoded is this process's"),
        "Guest/StateBytes.swift": (1, "constants"),
        "KVMGuest/Devices/GuestClock.swift": (1, "constants; counts of nextCount, below 2^62; or of this process"),
        "KVMGuest/Devices/ModelRegistersDevice.swift": (
            1,
            "constants; counts of nextCount, below 2^62; or of this process"
        ),
        "KVMGuest/Devices/SerialPort.swift": (5, "constants; counts of nextCount, below 2^62; or of this process"),
        "KVMGuest/KVMConfiguration.swift": (2, "behind the bounds of validate; what is encoded is this process's"),
        "LinuxSystem/Directory.swift": (4, "lengths that the kernel gives"),
        "LinuxSystem/HugePagePool.swift": (4, "counts below 2^40"),
        "LinuxSystem/PeerOrigin.swift": (2, "fields of 32 bits that are widened"),
        "LinuxSystem/ProcessLock.swift": (1, "a conversion of text, which gives nil"),
        "LinuxSystem/StreamSocket+Descriptors.swift": (
            8,
            "counts that the kernel gives, of at most 17 descriptors; a conversion of text, which gives nil"
        ),
        "MicroVMGuest/MicroVMConfiguration.swift": (2, "lists; what is encoded is this process's"),
        "Outside/Untrusted.swift": (4, "the operators themselves"),
        "PageProtocol/DeviceEntry.swift": (
            6,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/GuestAnnouncement.swift": (
            8,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/Hello.swift": (
            7,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/Join.swift": (4, "fields that are widened, or behind the bounds of require, validate and extent"),
        "PageProtocol/LaneFrame+Wire.swift": (
            4,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/ReceivedPages.swift": (
            1,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/RegionShape.swift": (
            7,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/SnapshotSlice.swift": (
            9,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "PageProtocol/WireReader.swift": (
            11,
            "fields that are widened, or behind the bounds of require, validate and extent"
        ),
        "QMP/ClientSession.swift": (1, "places in a text that is held in memory; four hexadecimal digits"),
        "QMP/JSONReader.swift": (17, "places in a text that is held in memory; four hexadecimal digits"),
        "QMP/MessageSplitter.swift": (2, "places in a text that is held in memory; four hexadecimal digits"),
        "Telemetry/Report.swift": (1, "of Untrusted"),
        "WorkingSet/WorkingSet+Record.swift": (10, "numbers of 32 bits that are widened, or behind the check before"),
        "Workloads/DeviceSpecification.swift": (1, "a conversion of text, which gives nil"),
        "Workloads/Devices/ClockDevice.swift": (
            3,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Workloads/Devices/ConsoleDevice.swift": (
            4,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Workloads/Devices/DiskDevice.swift": (
            1,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Workloads/Devices/HookDevice.swift": (4, "seconds of this process's own, below 2^32"),
        "Workloads/Devices/LedgerDevice.swift": (
            4,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Workloads/Devices/ProcessorDevice.swift": (
            4,
            "counts of nextCount, below 2^62; times below 2^63; sizes of this process's memory"
        ),
        "Workloads/RandomStream.swift": (7, "sizes behind the bounds of validate; or of this process's memory"),
        "Workloads/TestDevices/MemoryReadingDevice.swift": (2, "pages of this process's memory"),
        "Workloads/Witness.swift": (5, "sizes behind the bounds of validate; or of this process's memory"),
        "Workloads/WorkloadConfiguration.swift": (
            8,
            "sizes behind the bounds of validate; or of this process's memory"
        ),
        "pageferry/ChildAgent.swift": (3, "lists; conversions of text, which give nil; or of Untrusted"),
        "pageferry/ProbeCommand.swift": (4, "lists; conversions of text, which give nil; or of Untrusted"),
    ]

    private static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources")

    private func count(_ pattern: String, in text: String) throws -> Int {
        let expression = try NSRegularExpression(pattern: pattern)
        return expression.numberOfMatches(in: text, range: NSRange(text.startIndex..., in: text))
    }

    /// The lines of code with a dangerous form, without comments and what is in strings.
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

    @Test("has no form that traps on a number out of range but those that are known")
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
        // Otherwise the paths are wrong, and nothing was looked at.
        #expect(parsers.count > 40)
        #expect(Set(DangerousFormsTests.known.keys).isSubset(of: parsers))
    }

    @Test("prints through Terminal, which escapes, and nowhere else")
    func printing() throws {
        for file in files where file != "pageferry/Terminal.swift" {
            let text = try String(contentsOf: DangerousFormsTests.sources.appendingPathComponent(file), encoding: .utf8)
            let pattern = #"(?<![\w.])print\(|FileHandle\.standard(Error|Output)|fputs\(|(?<!/dev/)\bstd(err|out)\b"#
            for line in text.split(separator: "\n") where !line.trimmingCharacters(in: .whitespaces).hasPrefix("//") {
                #expect(try count(pattern, in: String(line)) == 0, "\(file): \(line)")
            }
        }
    }
}
