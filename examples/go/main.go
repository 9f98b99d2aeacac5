// Command score asks Assay's reward service how good each answer to a prompt is.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	commonv1 "assay-example/gen/assay/common/v1"
	rewardv1 "assay-example/gen/assay/reward/v1"
)

//go:generate go build -o bin/ tool
//go:generate buf generate

// Exit codes; 2 is the flag package's own for a wrong command line.
var exitCodes = map[codes.Code]int{
	codes.InvalidArgument:   3,
	codes.DeadlineExceeded:  4,
	codes.ResourceExhausted: 5,
}

func main() {
	target := flag.String("target", "", "host:port of the reward service")
	model := flag.String("model", "", `reward model; empty: the alias "default"`)
	prompt := flag.String("prompt", "", "what the answers answer")
	timeout := flag.Float64("timeout", 10, "seconds until the call must be done, retries included")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: score --target host:port [--model name] [--timeout seconds] --prompt text answer...")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *target == "" || *prompt == "" || !(*timeout > 0) || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	response, err := score(*target, newRequest(*model, *prompt, flag.Args()), time.Duration(*timeout*float64(time.Second)))
	if err != nil {
		complain(err)
		os.Exit(exitCode(err))
	}
	show(response)
}

func newRequest(model, prompt string, answers []string) *rewardv1.ScoreGroupRequest {
	request := &rewardv1.ScoreGroupRequest{
		Model: &commonv1.ModelSelector{Name: model},
		Context: &rewardv1.ScoreGroupRequest_Conversation{Conversation: &commonv1.Conversation{
			Messages: []*commonv1.Message{{Role: commonv1.Role_ROLE_USER, Content: prompt}},
		}},
	}
	for _, answer := range answers {
		request.Candidates = append(request.Candidates, &rewardv1.Candidate{Body: &rewardv1.Candidate_Text{Text: answer}})
	}
	return request
}

// score calls the service; the deadline holds for all attempts together, and travels to the service with each.
func score(target string, request *rewardv1.ScoreGroupRequest, timeout time.Duration) (*rewardv1.ScoreGroupResponse, error) {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	client := rewardv1.NewRewardServiceClient(connection)
	return whileFull(ctx, func() (*rewardv1.ScoreGroupResponse, error) { return client.ScoreGroup(ctx, request) })
}

func show(response *rewardv1.ScoreGroupResponse) {
	for index, score := range response.GetScores() {
		fmt.Printf("candidates[%d]\t%s\n", index, strconv.FormatFloat(score.GetValue(), 'g', -1, 64))
	}
	provenance := response.GetProvenance()
	fmt.Printf("best\tcandidates[%d]\n", response.GetBestIndex())
	fmt.Printf("model\t%s@%s\n", provenance.GetModel(), provenance.GetRevision())
	fmt.Printf("fingerprint\t%s\n", provenance.GetFingerprint())
	fmt.Printf("dtype\t%s\n", provenance.GetDtype())
	fmt.Printf("engine\t%s\n", provenance.GetEngineVersion())
}

// complain says what went wrong, and which fields of the request it was where the service names them.
func complain(err error) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", canonical(status.Code(err)), status.Convert(err).Message())
	for _, violation := range violations(err) {
		fmt.Fprintf(os.Stderr, "  %s: %s\n", violation.GetField(), violation.GetDescription())
	}
}

func exitCode(err error) int {
	if code, known := exitCodes[status.Code(err)]; known {
		return code
	}
	return 1
}
