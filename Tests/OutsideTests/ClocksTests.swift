import Foundation
import Testing

/// Checks that the source code measures time with one clock, so that times and timeouts of all parts can be compared.
@Suite("A clock")
struct ClocksTests {
    private static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("Sources")

    /// Ways to read a clock beside `MonotonicClock`.
    private static let others =
        #"\b(ContinuousClock|SuspendingClock|DispatchTime|DispatchWallTime|NIODeadline|clock_gettime|gettimeofday)\b"#
        + #"|\bDate\(\)|\bDate\.now\b|\btimeIntervalSinceNow\b|\bsystemUptime\b"#

    /// The files that read another clock, and why.
    private static let reasons = [
        "System/LinuxSystem/MonotonicClock.swift": "reads the clock for all others",
        "Pages/Connections/EventQueue.swift": "the timers go by the same clock, or by that of a test",
        "Control/Controller/Agent/Agent.swift": "the timers go by the same clock, or by that of a test",
        "Guests/FaultHandler/GuestView.swift": "operators read when a guest attached as the time of day",
        "Control/QMP/WireFormat.swift": "QMP's events carry the time of day",
        "pageferry/Output/LogFormat.swift": "log lines carry the time of day",
        "pageferry/Output/LogRing.swift": "log lines carry the time of day",
        "Control/Web/Sampler.swift": "states and metrics carry the time of day",
    ]

    @Test("is read through MonotonicClock, unless people read the time of day")
    func oneClock() throws {
        let files = FileManager.default.enumerator(atPath: ClocksTests.sources.path)?.allObjects as? [String]
        var found: Set<String> = []
        for file in try #require(files).sorted() where file.hasSuffix(".swift") {
            let text = try String(contentsOf: ClocksTests.sources.appendingPathComponent(file), encoding: .utf8)
            for line in text.split(separator: "\n") {
                let code = line.components(separatedBy: "//")[0]
                guard code.range(of: ClocksTests.others, options: .regularExpression) != nil else { continue }
                found.insert(file)
                #expect(ClocksTests.reasons[file] != nil, "\(file): \(line.trimmingCharacters(in: .whitespaces))")
            }
        }
        #expect(found.isSuperset(of: ClocksTests.reasons.keys))
    }
}
