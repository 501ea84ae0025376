import ArgumentParser
import Foundation
import LinuxSystem
import Telemetry

/// Prints two reports side by side.
struct CompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Compare the reports of two migrations, and say which waits differ by more than noise.",
        discussion: """
            A wait differs if the 99 % confidence intervals of its quantile in the two reports have room between them. \
            Every other figure is one measurement in each report, and has a ratio but no verdict: only further \
            migrations tell how far such a figure scatters.

            Examples:

              pageferry demo --report one
              pageferry demo --prefetch none --report other
              pageferry compare one other
            """
    )

    @Argument(
        help: ArgumentHelp(
            "A folder that --report of demo or migrate has written, or its report.json.",
            valueName: "a"
        ),
        completion: .file()
    )
    var a: String

    @Argument(help: ArgumentHelp("The other report, whose figures are divided by those of the first.", valueName: "b"))
    var b: String

    @Flag(help: "Print one JSON object.")
    var json = false

    @OptionGroup var configurationOptions: ConfigurationOptions

    /// The most bytes of a report; one of a real migration has far fewer.
    private static let largest = 16 << 20

    func run() throws {
        EndSignals.watch()
        let comparison = try ReportComparison(CompareCommand.read(a), CompareCommand.read(b))
        if json {
            Terminal.show(json: try comparison.json())
        } else {
            Terminal.show(ComparisonTable(comparison).lines)
        }
    }

    private static func read(_ path: String) throws -> (report: Report, file: String) {
        var isFolder: ObjCBool = false
        let isThere = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
        let file = isThere && isFolder.boolValue ? URL(filePath: path).appending(path: "report.json").path : path
        let bytes = try WholeFile.read(file, atMost: largest)
        do throws(Report.Unreadable) {
            return (try Report(json: Data(bytes)), file)
        } catch {
            throw Failure(
                "cannot compare \(file): \(error); give a folder that --report of pageferry demo or migrate has written"
            )
        }
    }
}
