import ArgumentParser
import Bench
import Foundation
import Histogram
import LinuxSystem
import Telemetry
import Web

/// The option `--report`: a folder for a report that is read after the run.
struct ReportFolder: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Write the report into this folder, for later: report.html, report.json, and the waits as .hgrm.",
            valueName: "folder"
        ),
        completion: .directory
    )
    var report: String?

    private var files: ReportFiles? { report.map(ReportFiles.init(in:)) }

    /// Makes the folder, so that a folder that cannot be written is reported before the run.
    func prepare() throws { try files?.prepare() }

    /// Writes a report, if the option was given.
    func write(_ report: Report) throws { try files?.write(report) }

    /// Writes the results of a benchmark, if the option was given.
    func write(_ cases: [Comparison]) throws { try files?.write(cases) }
}

/// The files of a report in a folder.
struct ReportFiles: Sendable {
    private let folder: String

    /// Names the folder.
    init(in folder: String) { self.folder = folder }

    /// Makes the folder, and checks that files can be written there.
    func prepare() throws {
        do throws(SystemError) {
            try Directory.make(folder)
        } catch {
            throw Failure("\(error.sentence); name another folder as --report")
        }
        try WholeFile.requireReplaceable(path("report.html"))
    }

    /// Writes the report of a migration or of a restored guest.
    ///
    /// If the stalls of the threads could not be measured, `service.hgrm` has what the agent saw.
    func write(_ report: Report) throws {
        let waits = report.distribution
        if let service = waits?.service, waits?.stall.isEmpty != false, !service.isEmpty {
            try WholeFile.replace(path("service.hgrm"), with: ReportFiles.distribution(of: service))
        } else {
            try WholeFile.replace(path("stalls.hgrm"), with: ReportFiles.distribution(of: waits?.stall ?? []))
        }
        let json = try report.json()
        try write(json, page: ReportPage.html(of: json))
    }

    /// Writes the results of a benchmark, and the stalls of each case that has some.
    func write(_ cases: [Comparison]) throws {
        for one in cases {
            guard let stalls = one.stalls else { continue }
            try WholeFile.replace(path("stalls-\(one.name).hgrm"), with: ReportFiles.text(of: stalls))
        }
        let json = try BenchTable(cases).json()
        try write(json, page: ReportPage.html(of: json))
    }

    /// Writes the text for programs and the page, after all other files: a folder with a page is complete.
    private func write(_ json: String, page: [UInt8]) throws(SystemError) {
        try WholeFile.replace(path("report.json"), with: Array((json + "\n").utf8))
        try WholeFile.replace(path("report.html"), with: page)
    }

    private func path(_ name: String) -> String { URL(filePath: folder).appending(path: name).path }

    /// Waits by their lengths as text of HdrHistogram, each counted at the end of its part of an octave.
    private static func distribution(of parts: [[Double]]) -> [UInt8] {
        var histogram = Histogram<UInt64>(highestTrackableValue: 1 << 41, numberOfSignificantValueDigits: .three)
        for part in parts where part.count == 2 {
            _ = histogram.record(UInt64(part[0] * 1000), count: UInt64(part[1]))
        }
        return text(of: histogram)
    }

    /// The text of HdrHistogram of durations in nanoseconds, with its times in microseconds.
    static func text(of nanoseconds: Histogram<UInt64>) -> [UInt8] {
        var text = ""
        nanoseconds.outputPercentileDistribution(to: &text, outputValueUnitScalingRatio: 1000)
        return Array(text.utf8)
    }
}
