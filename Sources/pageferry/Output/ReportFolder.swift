import ArgumentParser
import Foundation
import Histogram
import LinuxSystem
import Telemetry
import Web

/// The option `--report`: a folder for a report that is read after the run.
struct ReportFolder: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Write the report into this folder, for later: report.html, report.json, and stalls.hgrm.",
            valueName: "folder"
        )
    )
    var report: String?

    /// Makes the folder, so that a folder that cannot be written is reported before the run.
    func prepare() throws {
        guard let report else { return }
        do {
            try FileManager.default.createDirectory(atPath: report, withIntermediateDirectories: true)
        } catch {
            throw Failure("cannot make the folder \(report) of --report: \(error.localizedDescription)")
        }
        try WholeFile.requireReplaceable(path("report.html"))
    }

    /// Writes a report, if the option was given.
    func write(_ report: Report) throws {
        guard self.report != nil else { return }
        let json = try report.json()
        try WholeFile.replace(path("report.json"), with: Array((json + "\n").utf8))
        try WholeFile.replace(path("report.html"), with: ReportPage.html(of: json))
        try WholeFile.replace(path("stalls.hgrm"), with: Array(distribution(of: report).utf8))
    }

    private func path(_ name: String) -> String { URL(filePath: report ?? "").appending(path: name).path }

    /// The stalls as text of HdrHistogram, in microseconds, each counted at the end of its eighth of an octave.
    private func distribution(of report: Report) -> String {
        var histogram = Histogram<UInt64>(highestTrackableValue: 1 << 41, numberOfSignificantValueDigits: .three)
        for part in report.distribution?.stall ?? [] where part.count == 2 {
            _ = histogram.record(UInt64(part[0] * 1000), count: UInt64(part[1]))
        }
        var text = ""
        histogram.outputPercentileDistribution(to: &text, outputValueUnitScalingRatio: 1000)
        return text
    }
}
